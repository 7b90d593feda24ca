"""Latency tables: list, add, show, estimate with."""

from fastapi import APIRouter, Response, status

from services.client.schemas import (
    CalibrationRecord,
    EstimateRequest,
    EstimateResponse,
    JsonObject,
    LatencyTablePage,
    LatencyTableSubmission,
    LatencyTableSummary,
    Sha256,
)
from services.control_plane.dependencies import AllParts, DocumentSession, ProfilerTurn, ReadSession, WriteSession
from services.control_plane.entity_tags import IMMUTABLE
from services.control_plane.estimates import estimate
from services.control_plane.pages import DocumentCursor, Limit
from services.storage.documents import (
    find_calibration_record,
    find_latency_table,
    page_of_latency_tables,
    submit_latency_table,
)

router = APIRouter(prefix="/latency-tables", tags=["latency tables"])


@router.get("")
def list_(session: ReadSession, cursor: DocumentCursor = None, limit: Limit = 50) -> LatencyTablePage:
    """The newest tables, each with what it was measured on, page by page."""
    return page_of_latency_tables(session, cursor=cursor, limit=limit)


@router.post("", status_code=status.HTTP_201_CREATED)
def add(submission: LatencyTableSubmission, session: WriteSession) -> LatencyTableSummary:
    """Adds a table, for example a published one; adding it again changes nothing."""
    return submit_latency_table(session, submission.document)


@router.get("/{table}")
def show(table: Sha256, session: DocumentSession, response: Response) -> JsonObject:
    """The document of a table: its fingerprint and its rows."""
    document = find_latency_table(session, table)
    response.headers.update({"ETag": f'"{table}"', "Cache-Control": IMMUTABLE})
    return document


@router.get("/{table}/calibration")
def calibration(table: Sha256, session: ReadSession) -> CalibrationRecord:
    """The correction of the table's sums, fitted on networks measured whole; null where none was measured."""
    return find_calibration_record(session, table)


@router.post("/{table}/estimates")
def estimates(
    table: Sha256, request: EstimateRequest, _: ProfilerTurn, session: ReadSession, parts: AllParts
) -> EstimateResponse:
    """The predicted latency of architectures on the table's device."""
    return estimate(session, parts.profiler, table, request)
