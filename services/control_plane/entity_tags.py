"""Entity tags (RFC 9110): what a document was when it was read, so that a request can depend on it."""

import hashlib
from typing import Annotated, TypeVar

from fastapi import Header, Response, status
from pydantic import BaseModel
from sqlalchemy.orm import Session

from services.client.schemas import Problem
from services.control_plane.problems import MEDIA_TYPE
from services.storage.errors import PreconditionFailed
from services.storage.jobs import locked_job
from services.storage.projects import locked_project, show_project
from services.storage.views import show_job

IMMUTABLE = "private, max-age=31536000, immutable"
UNCHANGED: dict[int | str, dict[str, object]] = {304: {"description": "As If-None-Match names it"}}
CHANGED: dict[int | str, dict[str, object]] = {
    412: {"description": "Not as If-Match names it", "model": Problem, "content": {MEDIA_TYPE: {}}}
}

Document = TypeVar("Document", bound=BaseModel)
IfMatch = Annotated[str | None, Header(max_length=1000, description="ETags; refused with 412 if none is that of now")]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="ETags; 304 if one is that of now")]


def entity_tag(document: BaseModel) -> str:
    """The tag of a document as it is shown, another with every change."""
    return f'"{hashlib.sha256(document.model_dump_json().encode()).hexdigest()}"'


def matches(header: str, tag: str) -> bool:
    """Whether a header names the tag, or any. A weak one is not ours: nothing is written that depends on it."""
    return header.strip() == "*" or tag in (named.strip() for named in header.split(","))


def tagged(document: Document, response: Response, if_none_match: str | None) -> Document | Response:
    """The document with its tag, or nothing but the tag where the header names it."""
    tag = entity_tag(document)
    named = (if_none_match or "").replace("W/", "")  # a proxy weakens the tags of what it compresses
    if matches(named, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return document


def require_unchanged(session: Session, job_id: str, if_match: str | None) -> None:
    """Holds the job until the transaction ends; PreconditionFailed where the header does not name it as it is now."""
    if if_match is not None:
        _require(if_match, show_job(session, locked_job(session, job_id)), f"job {job_id}")


def require_project_unchanged(session: Session, project: str, if_match: str | None) -> None:
    """As `require_unchanged`, of a project."""
    if if_match is not None:
        locked_project(session, project)
        _require(if_match, show_project(session, project), f"project {project}")


def _require(if_match: str, document: BaseModel, name: str) -> None:
    if not matches(if_match, entity_tag(document)):
        raise PreconditionFailed(f"{name} has changed since it was read: read it again")
