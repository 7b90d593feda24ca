"""Every refusal as RFC 9457 problem+json. What was sent is never echoed."""

import errno
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.client.schemas import InvalidField, Problem
from services.storage.database import AWAY, said
from services.storage.errors import DomainError, Unavailable, described, invalid_field
from services.telemetry.logs import request_id
from services.telemetry.requests import id_header

RETRY_AFTER_SECONDS = 5
LATER = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)  # the same request may succeed then
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MEDIA_TYPE = "application/problem+json"
RESPONSES: dict[int | str, dict[str, object]] = {
    "4XX": {"description": "Refused", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
    422: {"description": "Invalid request", "model": Problem, "content": {MEDIA_TYPE: {}}},
    "5XX": {"description": "Failed", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
}

_log = logging.getLogger(__name__)


def add_problem_handlers(app: FastAPI) -> None:
    """Makes the application answer every error with a problem."""
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _cut_off)
    for error in AWAY:
        app.add_exception_handler(error, _database_error)
    app.add_exception_handler(OSError, _disk_error)
    app.add_exception_handler(Exception, _unexpected_error)


def problem(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    errors: Sequence[InvalidField] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem as a response."""
    body = Problem(
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=list(errors),
        request_id=request_id(),
    )
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in LATER else {}
    return JSONResponse(
        body.model_dump(mode="json"), status_code=status, headers={**(headers or {}), **retry}, media_type=MEDIA_TYPE
    )


class BodyLimit:
    """Refuses a body over the limit before it is read, or while it is where its length was not declared."""

    def __init__(self, app: ASGIApp, *, max_document_bytes: int, max_blob_bytes: int, blob_prefix: str) -> None:
        self._app = app
        self._max_document_bytes = max_document_bytes
        self._max_blob_bytes = max_blob_bytes
        self._blob_prefix = blob_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_blob = scope["path"].startswith(self._blob_prefix)
        limit = self._max_blob_bytes if is_blob else self._max_document_bytes
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit))
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit), headers={"Connection": "close"})
            await refusal(scope, receive, send)
        else:
            await self._app(scope, counted, send)


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"


async def _domain_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    return problem(error.status, error.detail, title=error.title, errors=error.fields, headers=headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    items = error.errors()
    fields = [invalid_field(item["msg"], *_place(item["loc"])) for item in items]
    if any(item["loc"] == ("body",) for item in items) and "json" not in request.headers.get("Content-Type", ""):
        fields = [
            invalid_field("is taken for JSON with the header Content-Type: application/json alone: send it", "body")
        ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, described(fields), title="Invalid request", errors=fields)


def _place(location: Sequence[str | int]) -> Sequence[str | int]:
    """A place in the request, without naming the body."""
    inner = location[1:] if location[0] == "body" else location
    is_offset = len(inner) == 1 and isinstance(inner[0], int)  # of what is no JSON
    return ("body",) if is_offset or not inner else inner


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, headers=error.headers)


async def _cut_off(_: Request, __: Exception) -> JSONResponse:
    """For the log alone: whoever sent the body, such as a worker that was killed, is gone."""
    return problem(HTTPStatus.BAD_REQUEST, "the body ended before it was whole")


async def _database_error(_: Request, error: Exception) -> JSONResponse:
    """The database is away. Where the answer to a COMMIT was lost, what was asked for may be done already."""
    _log.error("the database failed", extra={"error": said(error)})
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer", title=Unavailable.title)


async def _disk_error(_: Request, error: Exception) -> JSONResponse:
    """A disk has no room for a body that arrives, for a blob or for a copy of one: nothing of it was kept."""
    assert isinstance(error, OSError)
    if error.errno not in FULL:
        raise error
    _log.error("a disk is full", extra={"error": str(error)})
    return problem(HTTPStatus.INSUFFICIENT_STORAGE, "the service has no room for this now")


async def _unexpected_error(_: Request, __: Exception) -> JSONResponse:
    """Our bug; Starlette raises it again after this answer, outside of all middleware: the server logs its trace."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of ours; see the server's log", headers=id_header())
