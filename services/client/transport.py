"""One request to the control plane, repeated while that may help, with refusals raised as typed errors.

Repeating is harmless: submissions carry an Idempotency-Key, workers' events a sequence number, all else is keyed by a
digest or asks for a state. But each request for a token makes one, so it is sent once, and a ticket works once: where
the answer that it was exchanged for is lost, the attempt is over.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BufferedIOBase
from typing import TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import (
    CorruptArtifactError,
    FasterSegError,
    ProblemError,
    StoreError,
    UnexpectedAnswerError,
    UnreachableError,
)
from .schemas import JsonObject, Problem

REPEATABLE = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)  # besides what is the server's fault
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
CHUNK_BYTES = 1 << 20

_DOCUMENT = TypeAdapter(JsonObject)
_Model = TypeVar("_Model", bound=BaseModel)
_Answer = TypeVar("_Answer")


class FileBody:
    """A file's bytes from its beginning, as often as they are asked for: a repeated request sends them again."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk


def connect(
    url: str,
    *,
    timeout: float,
    token: str | None = None,
    traceparent: str | None = None,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A pool of connections to /api/v1 of the service at this address; `traceparent` is the span of its requests."""
    headers = {"Authorization": f"Bearer {token.strip()}"} if token else {}  # it may be what a file holds
    return httpx.Client(
        base_url=f"{url.rstrip('/')}/api/v1/",
        headers=headers | ({"traceparent": traceparent} if traceparent else {}),
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
    return _patiently(lambda: _ask(http, request), patience_seconds, sleep)


def receive(
    http: httpx.Client,
    sha256: str,
    file: BufferedIOBase,
    *,
    timeout: float | httpx.Timeout,
    patience_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Writes a blob into a file, from the service or from the store that it links to; as `send` otherwise.

    Raises:
        CorruptArtifactError: what arrived is not of this digest.
        StoreError: the store did not hand it out; a new link is asked for while that may help.
    """
    request = http.build_request("GET", f"artifacts/{sha256}", timeout=timeout)
    received = _patiently(lambda: _receive(http, request, file), patience_seconds, sleep)
    if received != sha256:
        raise CorruptArtifactError(sha256, received)


def lines(http: httpx.Client, request: httpx.Request) -> Iterator[bytes]:
    """The lines of an answer's body as they arrive, asked for once.

    Raises:
        UnreachableError: nothing answered, or the connection was lost.
        ProblemError: the service refused.
    """
    try:
        with closing(http.send(request, stream=True)) as response:
            _refuse(response)
            rest = b""
            for chunk in response.iter_bytes():
                *whole, rest = (rest + chunk).split(b"\n")  # by nothing else: texts may hold other line ends
                yield from whole
    except httpx.TransportError as error:
        raise _unreachable(http, error) from error


def _patiently(ask: Callable[[], _Answer], patience_seconds: float, sleep: Callable[[float], None]) -> _Answer:
    deadline = time.monotonic() + patience_seconds
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return ask()
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
    return parsed_part(model, response.content, response.request)


def parsed_part(model: type[_Model], content: bytes, request: httpx.Request) -> _Model:
    """A part of the answer to a request as a value of the contract; UnexpectedAnswerError where it is none."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise UnexpectedAnswerError(str(request.url), str(error)) from error


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
        raise _unreachable(http, error) from error
    if response.is_success:
        return response
    raise ProblemError(_problem(response), _retry_after_seconds(response))


def _receive(http: httpx.Client, request: httpx.Request, file: BufferedIOBase) -> str:
    """Writes the body of the answer, or of what it links to, into a file and returns its sha256."""
    try:
        with closing(http.send(request, stream=True)) as response:
            link = _link(response)
            if link is None:
                _refuse(response)
                return _write(response, file)
    except httpx.TransportError as error:
        raise _unreachable(http, error) from error
    return _receive_from_store(http, link, file)


def _receive_from_store(http: httpx.Client, link: httpx.Request, file: BufferedIOBase) -> str:
    """As `_receive`, of a link."""
    address = f"{link.url.scheme}://{link.url.netloc.decode()}"  # the rest is as good as a token
    try:
        with closing(http.send(link, stream=True)) as response:
            if response.is_success:
                return _write(response, file)
            code = _store_code(response)
            cause = f"{response.status_code} {code or response.reason_phrase}"
            raise StoreError(address, cause, code, _retry_after_seconds(response))
    except httpx.TransportError as error:
        raise StoreError(address, str(error) or type(error).__name__, retry_after_seconds=0.0) from error


def _link(response: httpx.Response) -> httpx.Request | None:
    """The request that an answer links to, if it does; it shows no token, and is not followed from there.

    Raises:
        UnexpectedAnswerError: what came encrypted would go on in the clear.
    """
    if response.status_code != httpx.codes.TEMPORARY_REDIRECT or not response.has_redirect_location:
        return None
    origin = response.request.url
    target = origin.join(response.headers["Location"])
    if target.scheme not in ("https", origin.scheme):
        raise UnexpectedAnswerError(str(origin), f"it links to {target.scheme}://{target.host}, which is not encrypted")
    return httpx.Request("GET", target, extensions=response.request.extensions)  # with its timeouts, and no header


def _write(response: httpx.Response, file: BufferedIOBase) -> str:
    """Writes a body into a file, which it is all of, and returns its sha256."""
    file.seek(0)
    file.truncate()
    digest = hashlib.sha256()
    for chunk in response.iter_bytes(CHUNK_BYTES):
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _store_code(response: httpx.Response) -> str | None:
    """S3's word for what is wrong; a proxy in between answers without one."""
    found = re.search(rb"<Code>(\w{1,100})</Code>", response.read())
    return None if found is None else found[1].decode()


def _refuse(response: httpx.Response) -> None:
    """Raises the problem of an answer that is one; its body has not been read."""
    if not response.is_success:
        response.read()
        raise ProblemError(_problem(response), _retry_after_seconds(response))


def _unreachable(http: httpx.Client, error: httpx.TransportError) -> UnreachableError:
    return UnreachableError(str(http.base_url.join("/")), str(error) or type(error).__name__)


def _problem(response: httpx.Response) -> Problem:
    """The problem of a refusal; a proxy in between answers without one."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return Problem(
            title=response.reason_phrase,
            status=response.status_code,
            detail=response.text[:500],
            request_id=response.headers.get("X-Request-Id"),
        )


def _retry_after_seconds(response: httpx.Response) -> float | None:
    if not response.is_server_error and response.status_code not in REPEATABLE:
        return None
    seconds = response.headers.get("Retry-After", "0")
    return float(seconds) if seconds.isdecimal() else 0.0  # the header may hold a date instead
