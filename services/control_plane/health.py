"""How the parts of the service are: asked together, for a few seconds, in threads that no request needs."""

import asyncio
import importlib.metadata
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus

import httpx
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.client.schemas import Health
from services.control_plane.parts import Parts
from services.storage.database import Database
from services.storage.errors import Unavailable

OK = "ok"
PATIENCE_SECONDS = 3.0  # with a part
KEPT_SECONDS = 2.0  # that an answer is given again

_VERSION = importlib.metadata.version("fasterseg")


class HealthChecks:
    """What is known of the parts: however many ask, one check at a time answers all of them.

    A part that hangs is not asked again until it has answered: it keeps one thread.
    """

    def __init__(
        self, parts: Parts, *, patience_seconds: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ray_dashboard = parts.settings.ray_address
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._checks: dict[str, Callable[[], None]] = {
            "database": partial(_check_database, parts.database),
            "store": parts.store.check,
            "ray": parts.ray.check,
            "profiler": partial(_check_profiler, parts.profiler),
        }
        self._threads = ThreadPoolExecutor(len(self._checks), "health")
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._answers: dict[str, str] = {}
        self._good_until = -math.inf

    async def health(self) -> Health:
        """Every part asked for a sign of life, now or a moment ago."""
        async with self._one_at_a_time:
            if self._clock() >= self._good_until:
                self._answers = await self._ask()
                self._good_until = self._clock() + KEPT_SECONDS
            answers = self._answers
        status = OK if set(answers.values()) == {OK} else "degraded"
        return Health(status=status, version=_VERSION, ray_dashboard=self._ray_dashboard, **answers)

    async def _ask(self) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        for part, check in self._checks.items():
            if part not in self._asked or self._asked[part].done():
                self._asked[part] = loop.run_in_executor(self._threads, _state, check)
        await asyncio.wait(self._asked.values(), timeout=self._patience_seconds)
        return {part: asked.result() if asked.done() else "does not answer" for part, asked in self._asked.items()}


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except Unavailable as error:
        return error.detail
    return OK


def _check_database(database: Database) -> None:
    try:
        with database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise Unavailable("the database does not answer") from error


def _check_profiler(profiler: httpx.Client) -> None:
    try:
        answer = profiler.get("/health", timeout=PATIENCE_SECONDS)
    except httpx.TransportError as error:
        raise Unavailable(f"the profiler does not answer at {profiler.base_url}") from error
    if answer.status_code != HTTPStatus.OK:
        raise Unavailable(f"the profiler answered {answer.status_code}")
