"""One request to the control plane, repeated while that may help, with refusals raised as typed errors.

Every request of the contract is harmless to repeat: submissions carry an Idempotency-Key, workers' events a sequence
number, everything else is keyed by a digest or asks for a state.
"""

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import CorruptArtifactError, FasterSegError, ProblemError, UnexpectedAnswerError, UnreachableError
from .schemas import JsonObject, Problem

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0

_DOCUMENT = TypeAdapter(JsonObject)
_Model = TypeVar("_Model", bound=BaseModel)


def connect(
    url: str, *, timeout: float, token: str | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """A pool of connections to /api/v1 of the service at this address."""
    return httpx.Client(
        base_url=f"{url.rstrip('/')}/api/v1/",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=timeout,
        transport=transport,
        mounts={"all://127.0.0.1": None, "all://localhost": None},  # never through a proxy
    )


def build_post(
    http: httpx.Client, path: str, body: BaseModel | None = None, headers: dict[str, str] | None = None
) -> httpx.Request:
    """A POST request; numbers that JSON lacks (a loss that is NaN) are sent as null."""
    if body is None:
        return http.build_request("POST", path, headers=headers)
    return http.build_request(
        "POST", path, content=body.model_dump_json(), headers={"Content-Type": "application/json", **(headers or {})}
    )


def send(
    http: httpx.Client,
    request: httpx.Request,
    *,
    patience_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> httpx.Response:
    """The answer, asked for again after growing delays while the service is away and patience lasts.

    Raises:
        UnreachableError: nothing answered.
        ProblemError: the service refused.
    """
    deadline = time.monotonic() + patience_seconds
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return _ask(http, request)
        except FasterSegError as error:
            if error.retry_after_seconds is None:
                raise
            wait = max(delay, error.retry_after_seconds)
            if time.monotonic() + wait > deadline:
                raise
        sleep(wait)
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)


def parsed(model: type[_Model], response: httpx.Response) -> _Model:
    """The answer's body as a value of the contract; UnexpectedAnswerError where it is none."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise UnexpectedAnswerError(str(response.url), str(error)) from error


def parsed_document(response: httpx.Response) -> JsonObject:
    """The answer's body as a JSON object; UnexpectedAnswerError where it is none."""
    try:
        return _DOCUMENT.validate_json(response.content)
    except ValidationError as error:
        raise UnexpectedAnswerError(str(response.url), str(error)) from error


def verified(sha256: str, data: bytes) -> bytes:
    """The data; CorruptArtifactError where its digest is another."""
    received = hashlib.sha256(data).hexdigest()
    if received != sha256:
        raise CorruptArtifactError(sha256, received)
    return data


def _ask(http: httpx.Client, request: httpx.Request) -> httpx.Response:
    try:
        response = http.send(request)
    except httpx.TransportError as error:
        raise UnreachableError(str(http.base_url.join("/")), str(error) or type(error).__name__) from error
    if response.is_success:
        return response
    raise ProblemError(_problem(response), _retry_after_seconds(response))


def _problem(response: httpx.Response) -> Problem:
    """The problem of a refusal; a proxy in between answers without one."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return Problem(title=response.reason_phrase, status=response.status_code, detail=response.text[:500])


def _retry_after_seconds(response: httpx.Response) -> float | None:
    if not response.is_server_error:
        return None
    seconds = response.headers.get("Retry-After", "0")
    return float(seconds) if seconds.isdecimal() else 0.0  # the header may hold a date instead
