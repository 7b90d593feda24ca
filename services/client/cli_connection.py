"""How commands reach the service: their options, its refusals as exit codes, and jobs watched to their end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, BinaryIO

import httpx
import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Console

from .client import FasterSegClient
from .credentials import find_token
from .errors import FasterSegError, ProblemError, UnreachableError
from .progress import title, watch
from .schemas import Job, JobState, JsonObject

DEFAULT_URL = "http://127.0.0.1:8000"
FAILED = 1  # the job failed or was cancelled, or the service refused
UNREACHABLE = 3  # nothing is known of the job


def _address(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"{url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise typer.BadParameter(f"{url!r} is no address like {DEFAULT_URL}")
    return url


Url = Annotated[
    str,
    typer.Option("--url", envvar="FASTERSEG_URL", metavar="URL", callback=_address, help="Address of the service."),
]
JsonFile = Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", help="Its JSON; - reads standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs on standard output.")]


def id_of(kind: type[str]) -> Callable[[str], str]:
    """Checks an argument that is an id: with a script's empty variable nothing is asked of the service."""
    ids = TypeAdapter(kind)

    def check(text: str) -> str:
        try:
            return ids.validate_python(text)
        except ValidationError as error:
            raise typer.BadParameter(f"{text!r}: an id {said(error)}") from error

    return check


@contextmanager
def service(url: str) -> Iterator[FasterSegClient]:
    """The client of the service; what it refuses is printed, and ends the program."""
    try:
        token = find_token(url)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"the token cannot be read: {error}") from error
    with FasterSegClient(url, token=None if token is None else token.secret) as client:
        try:
            yield client
        except FasterSegError as error:
            say(str(error))
            if isinstance(error, ProblemError) and error.status == HTTPStatus.UNAUTHORIZED and token is not None:
                say(f"the token shown is that of {token.place}")
            raise typer.Exit(UNREACHABLE if isinstance(error, UnreachableError) else FAILED) from error
        except ValidationError as error:  # of what we were about to send
            raise typer.BadParameter(first_error(error)) from error


def watch_to_the_end(client: FasterSegClient, job_id: str, as_json: bool) -> Job:
    """The succeeded job; one that failed or was cancelled ends the program."""
    (job,) = watch(client, [job_id], Console(stderr=as_json))
    if as_json:
        print_json(job)
    if job.state is JobState.SUCCEEDED:
        return job
    if job.reason is not None:
        say(f"{title(job)} failed ({job.reason.failure}): {job.reason.message}")
    raise typer.Exit(FAILED)


def json_object(name: str, content: str | bytes) -> JsonObject:
    """The JSON object in a file; anything else ends the program, with the file's name."""
    try:
        return TypeAdapter(JsonObject).validate_json(content)
    except ValidationError as error:
        raise typer.BadParameter(f"{name}: not a JSON object: {said(error)}") from error


def sent_object(file: BinaryIO) -> JsonObject:
    """The JSON object in a file that was opened, or in what is typed or piped in; as `json_object`."""
    return json_object(getattr(file, "name", "standard input"), file.read())


def first_error(error: ValidationError) -> str:
    """The first wrong field, and what is wrong with it."""
    return f"{'.'.join(map(str, error.errors()[0]['loc']))}: {said(error)}"


def said(error: ValidationError) -> str:
    """What is wrong with the first wrong field."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def print_json(value: BaseModel) -> None:
    """Prints a value of the contract for programs."""
    typer.echo(value.model_dump_json(indent=2))


def say(message: str) -> None:
    """Prints a message for people, on standard error."""
    typer.echo(message, err=True)
