"""Architectures: list, show, draw, add."""

from fastapi import APIRouter, Response, status

from fasterseg_core.drawing import architecture_svg
from services.client.schemas import ArchitecturePage, ArchitectureRecord, ArchitectureSubmission, Sha256
from services.control_plane.dependencies import DocumentSession, ReadSession, WriteSession
from services.control_plane.pages import DocumentCursor, Limit
from services.storage.documents import (
    find_architecture,
    page_of_architectures,
    parse_architecture,
    submit_architecture,
)

router = APIRouter(prefix="/architectures", tags=["architectures"])


@router.get("")
def list_(session: ReadSession, cursor: DocumentCursor = None, limit: Limit = 50) -> ArchitecturePage:
    """The newest architectures, derived or added, page by page."""
    return page_of_architectures(session, cursor=cursor, limit=limit)


@router.post("", status_code=status.HTTP_201_CREATED)
def add(submission: ArchitectureSubmission, session: WriteSession) -> ArchitectureRecord:
    """Adds an architecture; adding it again changes nothing."""
    return submit_architecture(session, submission.document)


@router.get("/{architecture}.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def draw(architecture: Sha256, session: ReadSession) -> Response:
    """An architecture drawn as in Figure 6."""
    document = find_architecture(session, architecture).document
    return Response(architecture_svg(parse_architecture(document)), media_type="image/svg+xml")


@router.get("/{architecture}")
def show(architecture: Sha256, session: DocumentSession) -> ArchitectureRecord:
    """One architecture."""
    return find_architecture(session, architecture)
