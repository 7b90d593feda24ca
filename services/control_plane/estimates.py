"""Estimates of latency, asked of the profiler: the control plane holds tables, the profiler knows what they mean."""

from http import HTTPStatus

import httpx
from pydantic import ValidationError
from sqlalchemy.orm import Session

from fasterseg_core.latency_calibration import Calibration
from services.client.schemas import Estimate, EstimateRequest, EstimateResponse, JsonObject, Problem
from services.storage.documents import find_architecture, find_calibration, parse_architecture
from services.storage.errors import Conflict, InvalidRequest, Unavailable
from services.telemetry.requests import onward_headers


def estimate(session: Session, profiler: httpx.Client, table: str, request: EstimateRequest) -> EstimateResponse:
    """The estimate of each architecture on a table's device, in the same order.

    Raises:
        NotFound: the table or an architecture does not exist.
        InvalidRequest: a document is malformed, or the profiler refused it: the message names the missing operator.
        Unavailable: the profiler does not answer.
    """
    calibration = find_calibration(session, table)
    documents = [
        _document(session, architecture, f"architectures.{index}")
        for index, architecture in enumerate(request.architectures)
    ]
    session.rollback()  # nothing is held open while the profiler works
    try:
        response = profiler.post(
            f"/latency-tables/{table}/estimates",
            json={"architectures": documents, "breakdown": request.breakdown},
            headers=onward_headers(),
        )
    except httpx.TransportError as error:
        raise Unavailable("the profiler does not answer") from error
    if response.status_code in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
        refusal = _refusal(response)
        raise Conflict(refusal) if response.status_code == HTTPStatus.CONFLICT else InvalidRequest(refusal)
    if response.status_code != HTTPStatus.OK:
        raise Unavailable(f"the profiler answered {response.status_code}")
    estimates = EstimateResponse.model_validate_json(response.content)
    if calibration is None:
        return estimates
    return EstimateResponse(items=[_calibrated(item, calibration) for item in estimates.items])


def _calibrated(estimate: Estimate, calibration: Calibration) -> Estimate:
    milliseconds = calibration.milliseconds(estimate.milliseconds, estimate.num_executed)
    return estimate.model_copy(update={"calibrated_ms": milliseconds})


def _document(session: Session, architecture: str | JsonObject, field: str) -> JsonObject:
    if isinstance(architecture, str):
        return find_architecture(session, architecture).document
    parse_architecture(architecture, field)
    return architecture


def _refusal(response: httpx.Response) -> str:
    try:
        return Problem.model_validate_json(response.content).detail
    except ValidationError:
        return response.text[:500]
