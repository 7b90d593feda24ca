"""Requests as they are watched: under an id, timed for Prometheus, and with a log line once their answers begin."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus

from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.telemetry.logs import attempt_fields, note, request_id, start_fields

REQUEST_ID = "X-Request-Id"
METHODS = frozenset(HTTPMethod)
OTHER = "other"  # the route of paths that do not exist, and methods that HTTP does not know: senders choose their text
QUIET = frozenset({"/health", "/metrics", "/attempts/{submission_id}/heartbeat"})  # logged only where they fail

_is_well_formed = re.compile(r"[A-Za-z0-9._-]{8,64}").fullmatch
_log = logging.getLogger(__name__)


class WatchedRequests:
    """Watches each request until its answer begins: a stream of events may last for hours.

    The id is the sender's, where it is well-formed. Of the path only the route is told, and of the query nothing.
    """

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
        given = Headers(scope=scope).get(REQUEST_ID, "")
        chosen = given if _is_well_formed(given) else secrets.token_hex(8)
        start_fields(request=chosen)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = chosen
                self._tell(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # the server answers it outside of all middleware
            self._tell(scope, HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - started)
            raise

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = getattr(scope.get("route"), "path", OTHER)
        self._seconds.labels(method, route, str(status)).observe(seconds)
        note(**_subject(scope.get("path_params", {})))
        level = logging.DEBUG if route in QUIET and status < HTTPStatus.BAD_REQUEST else logging.INFO
        milliseconds = round(1000 * seconds, 1)
        _log.log(
            level,
            "request",
            extra={"method": method, "route": route, "status": int(status), "milliseconds": milliseconds},
        )


def id_header() -> dict[str, str]:
    """What carries the id of the request at hand into an answer, or to another process."""
    known = request_id()
    return {} if known is None else {REQUEST_ID: known}


def _subject(path: Mapping[str, str]) -> dict[str, object]:
    """The job or attempt that a path names."""
    if "submission_id" in path:
        return attempt_fields(path["submission_id"])
    return {"job": path["job_id"]} if "job_id" in path else {}
