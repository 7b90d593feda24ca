"""How often anyone may ask: a bucket for each token and each address, in this process's memory."""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from http import HTTPStatus

from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.control_plane.access import is_profilers
from services.control_plane.problems import problem
from services.control_plane.settings import Settings

MAX_BUCKETS = 10_000  # of a kind; beyond it the least recently used is forgotten, as if it were full


class Buckets:
    """A token bucket for each key, kept as the moment at which it is full again."""

    def __init__(self, *, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._interval = 1 / per_second
        self._capacity = burst / per_second
        self._clock = clock
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._full_at

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: Hashable) -> float:
        """The seconds until something may be taken."""
        now = self._clock()
        return max(0.0, max(self._full_at.get(key, now), now) + self._interval - self._capacity - now)

    def take(self, key: Hashable) -> float:
        """Takes one, or says how many seconds are to be waited for it."""
        wait = self.wait(key)
        if not wait:
            now = self._clock()
            self._keep(key, max(self._full_at.get(key, now), now) + self._interval)
        return wait

    def know(self, key: Hashable) -> None:
        """Keeps the bucket of a key, a full one where there was none."""
        self._keep(key, self._full_at.get(key, -math.inf))

    def forget(self, key: Hashable) -> None:
        """Drops the bucket of a key."""
        self._full_at.pop(key, None)

    def _keep(self, key: Hashable, full_at: float) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)


class RateLimits:
    """Refuses who asks too often, before his body is read.

    A token is known from its first success under the prefix on, where every route but /health asks for one, or for a
    ticket, and then has a bucket of its own. Whatever else is shown, or nothing, counts for the address of who does. It
    gets nothing more once too many of its tokens were refused: made-up tokens neither open buckets nor hinder those
    that are known.

    The profiler is not limited, as what it reads follows from estimates that were counted, nor is what a known worker
    reports: a heartbeat that waits could cost its lease.
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._settings = settings
        self._prefix = f"{prefix}/"
        self._workers = (f"{prefix}/attempts/", f"{prefix}/blobs/")
        self._health = (f"{prefix}/health", f"{prefix}/health/live")
        per_second, burst, failures = settings.requests_per_second, settings.request_burst, settings.failures_per_minute
        self._tokens = Buckets(per_second=per_second, burst=burst, clock=clock)
        self._addresses = Buckets(per_second=per_second, burst=burst, clock=clock)
        self._failures = Buckets(per_second=failures / 60, burst=failures, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._health:
            await self._app(scope, receive, send)
            return
        _, secret = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))  # as routes read it
        if is_profilers(self._settings, secret):
            await self._app(scope, receive, send)
            return
        token = hashlib.sha256(secret.encode()).digest() if secret else None
        address = scope["client"][0] if scope["client"] else ""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(message["status"], scope["path"], token, address)
            await send(message)

        if wait := self._take(scope["path"], token, address):
            await _refusal(wait)(scope, receive, send)
        else:
            await self._app(scope, receive, noted)

    def _take(self, path: str, token: bytes | None, address: str) -> float:
        if token not in self._tokens:
            return self._failures.wait(address) or self._addresses.take(address)
        return 0.0 if path.startswith(self._workers) else self._tokens.take(token)

    def _note(self, status: int, path: str, token: bytes | None, address: str) -> None:
        if status == HTTPStatus.UNAUTHORIZED:
            self._tokens.forget(token)
            self._failures.take(address)
        elif token and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES and path.startswith(self._prefix):
            self._tokens.know(token)


def _refusal(wait: float) -> ASGIApp:
    seconds = math.ceil(wait)
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"too many requests, or refused tokens, in a short time: ask again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )
