"""Entity tags (RFC 9110): what a document was when it was read, so that a request can depend on it."""

import hashlib
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy.orm import Session

from services.client.schemas import Problem
from services.control_plane.problems import MEDIA_TYPE
from services.storage.errors import PreconditionFailed
from services.storage.jobs import locked_job
from services.storage.views import show_job

IMMUTABLE = "private, max-age=31536000, immutable"
UNCHANGED: dict[int | str, dict[str, object]] = {304: {"description": "As If-None-Match names it"}}
CHANGED: dict[int | str, dict[str, object]] = {
    412: {"description": "Not as If-Match names it", "model": Problem, "content": {MEDIA_TYPE: {}}}
}

IfMatch = Annotated[str | None, Header(max_length=1000, description="ETags; refused with 412 if none is the job's")]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="ETags; 304 if one is the job's")]


def entity_tag(document: BaseModel) -> str:
    """The tag of a document as it is shown, another with every change."""
    return f'"{hashlib.sha256(document.model_dump_json().encode()).hexdigest()}"'


def matches(header: str, tag: str) -> bool:
    """Whether a header names the tag, or any. Ours are strong: a weak one is never ours."""
    return header.strip() == "*" or tag in (named.strip() for named in header.split(","))


def require_unchanged(session: Session, job_id: str, if_match: str | None) -> None:
    """Holds the job until the transaction ends; PreconditionFailed where the header does not name it as it is now."""
    if if_match is None:
        return
    if not matches(if_match, entity_tag(show_job(session, locked_job(session, job_id)))):
        raise PreconditionFailed(f"job {job_id} has changed since it was read: read it again")
