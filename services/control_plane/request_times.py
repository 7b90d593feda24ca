"""How long requests take, for Prometheus."""

import time
from http import HTTPMethod, HTTPStatus

from prometheus_client import CollectorRegistry, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = frozenset(HTTPMethod)
OTHER = "other"  # the route of paths that do not exist, and methods that HTTP does not know: senders choose their text


class RequestTimes:
    """Times each request until its answer begins: a stream of events may last for hours."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "fasterseg_http_request_seconds",
            "From a request to the beginning of its answer",
            labelnames=["method", "route", "status"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        def note(status: int) -> None:
            method = scope["method"] if scope["method"] in METHODS else OTHER
            route = getattr(scope.get("route"), "path", OTHER)
            self._seconds.labels(method, route, str(status)).observe(time.perf_counter() - started)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:  # the server answers it outside of all middleware
            note(HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
