"""Why a request is refused, each reason with its status; the control plane turns them into problem documents."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ValidationError

from services.client.schemas import InvalidField


def invalid_field(message: str, *place: str | int) -> InvalidField:
    """One of pydantic's errors, its place as a dotted path."""
    return InvalidField(field=".".join(map(str, place)), message=message.removeprefix("Value error, "))


def described(fields: Sequence[InvalidField]) -> str:
    """The first of the wrong fields in one line."""
    return "; ".join(f"{field.field}: {field.message}" for field in fields[:3])


class DomainError(Exception):
    """A refusal that the caller can act on; the message says how."""

    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str, fields: tuple[InvalidField, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields


class InvalidRequest(DomainError):
    """The request is well formed and cannot be done; `fields` says where."""

    status = 422
    title = "Invalid request"

    @classmethod
    def at(cls, field: str, message: str) -> "InvalidRequest":
        """The error of one field."""
        return cls(f"{field}: {message}", (InvalidField(field=field, message=message),))

    @classmethod
    def below(cls, field: str, error: ValidationError) -> "InvalidRequest":
        """The errors of a document in a field; what was sent is not among them."""
        fields = tuple(
            invalid_field(item["msg"], field, *item["loc"])
            for item in error.errors(include_input=False, include_url=False)
        )
        return cls(described(fields), fields)


class NotAuthorized(DomainError):
    status = 401
    title = "Not authorized"


class Forbidden(DomainError):
    """Who asks is known, and may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(DomainError):
    status = 404
    title = "Not found"


class Conflict(DomainError):
    """The state that was asked for cannot be reached from the present one."""

    status = 409
    title = "Conflict"


class PreconditionFailed(DomainError):
    """What is asked for depends on something that has changed."""

    status = 412
    title = "Precondition failed"


class LeaseLost(Conflict):
    """The attempt is over: its worker must stop and write nothing more."""

    title = "Lease lost"


class Unavailable(DomainError):
    """A part of the service is away; the same request may succeed later."""

    status = 503
    title = "Unavailable"


class Gone(DomainError):
    """It was there, and will not be again."""

    status = 410
    title = "Gone"


class CorruptBlob(DomainError):
    """The store returned bytes that do not hash to their name: those that do are gone, and asking again is in vain."""

    status = 410
    title = "Corrupt blob"
