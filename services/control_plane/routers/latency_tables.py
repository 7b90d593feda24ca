"""Latency tables: list, show, estimate with."""

from fastapi import APIRouter

from services.client.schemas import EstimateRequest, EstimateResponse, JsonObject, LatencyTablePage, Sha256
from services.control_plane.estimates import estimate
from services.control_plane.parts import AllParts, ReadSession
from services.storage.documents import find_latency_table, list_latency_tables

router = APIRouter(prefix="/latency-tables", tags=["latency tables"])


@router.get("")
def list_(session: ReadSession) -> LatencyTablePage:
    """The newest tables, each with what it was measured on."""
    return LatencyTablePage(items=list_latency_tables(session))


@router.get("/{table}")
def show(table: Sha256, session: ReadSession) -> JsonObject:
    """The document of a table: its fingerprint and its rows."""
    return find_latency_table(session, table)


@router.post("/{table}/estimates")
def estimates(table: Sha256, request: EstimateRequest, session: ReadSession, parts: AllParts) -> EstimateResponse:
    """The predicted latency of architectures on the table's device."""
    return estimate(session, parts.profiler, table, request)
