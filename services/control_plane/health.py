"""How the parts of the service are, each asked within seconds."""

import importlib.metadata
from collections.abc import Callable
from http import HTTPStatus

import httpx
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.client.schemas import Health
from services.control_plane.parts import Parts
from services.storage.errors import Unavailable

OK = "ok"


def check_health(parts: Parts) -> Health:
    """Every part asked for a sign of life."""
    answers = {
        "database": _ask(lambda: _check_database(parts)),
        "store": _ask(parts.store.check),
        "ray": _ask(parts.ray.check),
        "profiler": _ask(lambda: _check_profiler(parts.profiler)),
    }
    status = OK if set(answers.values()) == {OK} else "degraded"
    version = importlib.metadata.version("fasterseg")
    return Health(status=status, version=version, ray_dashboard=parts.settings.ray_address, **answers)


def _ask(check: Callable[[], None]) -> str:
    try:
        check()
    except Unavailable as error:
        return error.detail
    return OK


def _check_database(parts: Parts) -> None:
    try:
        with parts.database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise Unavailable("the database does not answer") from error


def _check_profiler(profiler: httpx.Client) -> None:
    try:
        answer = profiler.get("/health", timeout=3.0)
    except httpx.TransportError as error:
        raise Unavailable(f"the profiler does not answer at {profiler.base_url}") from error
    if answer.status_code != HTTPStatus.OK:
        raise Unavailable(f"the profiler answered {answer.status_code}")
