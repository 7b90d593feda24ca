"""Requests as they are watched: under an id, timed for Prometheus, told as log lines and spans once answers begin."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.telemetry.logs import attempt_fields, note, noted_fields, request_id, start_fields, trace_fields

if TYPE_CHECKING:
    from services.telemetry.traces import Span, Traces

REQUEST_ID = "X-Request-Id"
TRACEPARENT = "traceparent"
METHODS = frozenset(HTTPMethod)
OTHER = "other"  # the route of paths that do not exist, and methods that HTTP does not know: senders choose their text
QUIET = frozenset(  # told only where they fail
    {"/health", "/health/live", "/metrics", "/attempts/{submission_id}/heartbeat"}
)

_is_well_formed = re.compile(r"[A-Za-z0-9._-]{8,64}").fullmatch
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
_log = logging.getLogger(__name__)


class WatchedRequests:
    """Watches each request until its answer begins: a stream of events may last for hours, or break off.

    The id is the sender's, where it is well-formed. Of the path only the route is told, and of the query nothing.
    """

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry, traces: "Traces | None" = None) -> None:
        self._app = app
        self._traces = traces
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
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        chosen = given if _is_well_formed(given) else secrets.token_hex(8)
        span = None if self._traces is None else self._traces.request(headers.get(TRACEPARENT))
        _traceparent.set(None if span is None else span.traceparent)
        start_fields(request=chosen, **trace_fields(traceparent()))

        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message)[REQUEST_ID] = chosen
                self._tell(scope, message["status"], time.perf_counter() - started, span)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # the server answers it outside of all middleware, if nothing has begun to
            if not has_begun:
                self._tell(scope, HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - started, span)
            raise

    def _tell(self, scope: Scope, status: int, seconds: float, span: "Span | None") -> None:
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = getattr(scope.get("route"), "path", OTHER)
        self._seconds.labels(method, route, str(status)).observe(seconds)
        note(**_subject(scope.get("path_params", {})))
        is_quiet = route in QUIET and status < HTTPStatus.BAD_REQUEST
        if span is not None and not is_quiet:
            span.answer(method, route, status, noted_fields())
        milliseconds = round(1000 * seconds, 1)
        _log.log(
            logging.DEBUG if is_quiet else logging.INFO,
            "request",
            extra={"method": method, "route": route, "status": int(status), "milliseconds": milliseconds},
        )


def id_header() -> dict[str, str]:
    """What carries the id of the request at hand into an answer."""
    known = request_id()
    return {} if known is None else {REQUEST_ID: known}


def traceparent() -> str | None:
    """The span of the request at hand, where it has one, for what goes on with its trace."""
    return _traceparent.get()


def onward_headers() -> dict[str, str]:
    """What carries the id and the trace of the request at hand to another process."""
    parent = traceparent()
    return id_header() | ({} if parent is None else {TRACEPARENT: parent})


def _subject(path: Mapping[str, str]) -> dict[str, object]:
    """The job or attempt that a path names."""
    if "submission_id" in path:
        return attempt_fields(path["submission_id"])
    return {"job": path["job_id"]} if "job_id" in path else {}
