"""The profiler's HTTP application: latency tables, their rows, and estimates of architectures. It carries no torch."""

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from fasterseg_core.architecture import Architecture, ArchitectureDocument
from fasterseg_core.latency_table import LatencyEstimate, MissingLatencyError, estimate
from fasterseg_core.operator_specs import OperatorSpec
from services.client.errors import CorruptArtifactError, ProblemError, UnreachableError
from services.client.schemas import (
    Estimate,
    EstimateRequest,
    EstimateResponse,
    InvalidField,
    JsonObject,
    OperatorLatency,
    Problem,
    Sha256,
)
from services.profiler.documents import Documents
from services.profiler.metrics import ProfilerMetrics
from services.telemetry.logs import request_id
from services.telemetry.requests import WatchedRequests

if TYPE_CHECKING:
    from services.telemetry.traces import Traces

RETRY_AFTER_SECONDS = 5


class InvalidRequestError(Exception):
    """A field of a request that cannot be used, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = InvalidField(field=field, message=message)


def create_app(documents: Documents, token: str, traces: "Traces | None" = None) -> FastAPI:
    """The application over these documents, for who shows this token. Refusals are RFC 9457 problem+json."""

    async def admitted(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
        if not hmac.compare_digest(credentials.credentials.encode(), token.encode()):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, "this is not the token of the control plane", {"WWW-Authenticate": "Bearer"}
            )

    app = FastAPI(title="FasterSeg profiler", openapi_url=None)
    app.add_exception_handler(HTTPException, _http_error)
    protected = APIRouter(prefix="/latency-tables", dependencies=[Depends(admitted)])
    app.add_exception_handler(InvalidRequestError, _invalid_request)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(MissingLatencyError, _missing_latency)
    app.add_exception_handler(ProblemError, _control_plane_refused)
    app.add_exception_handler(UnreachableError, _control_plane_away)
    app.add_exception_handler(CorruptArtifactError, _corrupt)
    metrics = ProfilerMetrics(documents)
    app.add_middleware(WatchedRequests, registry=metrics.registry, traces=traces)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @protected.get("/{table}")
    def show(table: Sha256) -> JsonObject:
        return cast(JsonObject, documents.latency_table(table).to_document())

    @protected.get("/{table}/rows")
    def row(table: Sha256, key: str) -> JsonObject:
        return find_row(documents, table, key)

    @protected.post("/{table}/estimates")
    def estimates(table: Sha256, request: EstimateRequest) -> EstimateResponse:
        with metrics.estimate_seconds.time():
            response = estimate_all(documents, table, request)
        metrics.estimate_batch.observe(len(response.items))
        return response

    @app.get("/metrics", dependencies=[Depends(admitted)], include_in_schema=False)
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.include_router(protected)
    return app


def find_row(documents: Documents, table_id: str, key: str) -> JsonObject:
    """The row of an operator's key, quarantined or not.

    Raises:
        InvalidRequestError: the text is no operator's key.
        MissingLatencyError: the table has no such row.
    """
    table = documents.latency_table(table_id)
    try:
        spec = OperatorSpec.from_key(key)
    except ValueError as error:
        raise InvalidRequestError("key", str(error)) from error
    if spec not in table.rows:
        raise MissingLatencyError(f"latency table {table_id[:12]} has no entry for {key!r}")
    return cast(JsonObject, table.rows[spec].to_document())


def estimate_all(documents: Documents, table_id: str, request: EstimateRequest) -> EstimateResponse:
    """The estimate of each architecture, in the same order.

    Raises:
        InvalidRequestError: a document is no architecture.
        MissingLatencyError: the table lacks an operator of one.
    """
    table = documents.latency_table(table_id)
    items = []
    for index, item in enumerate(request.architectures):
        architecture = documents.architecture(item) if isinstance(item, str) else _parse(item, f"architectures.{index}")
        latency = estimate(architecture, table)
        items.append(_estimate(latency, request.breakdown))
    return EstimateResponse(items=items)


def _estimate(latency: LatencyEstimate, breakdown: bool) -> Estimate:
    operators = [
        OperatorLatency(part=operator.part, key=operator.spec.key, milliseconds=operator.milliseconds)
        for operator in (latency.operators if breakdown else ())
    ]
    return Estimate(
        milliseconds=latency.milliseconds,
        num_executed=latency.num_executed,
        parts=latency.parts,
        operators=operators if breakdown else None,
    )


def _parse(document: JsonObject, field: str) -> Architecture:
    try:
        return Architecture.from_document(cast(ArchitectureDocument, document))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError(field, f"{type(error).__name__}: {error}") from error


def _problem(status: int, detail: str, errors: list[InvalidField] | None = None) -> JSONResponse:
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, errors=errors or [], request_id=request_id())
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(
        body.model_dump(mode="json"), status_code=status, headers=headers, media_type="application/problem+json"
    )


def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = _problem(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InvalidRequestError)
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), [error.field])


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [InvalidField(field=".".join(map(str, item["loc"])), message=item["msg"]) for item in error.errors()]
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the request cannot be read", fields)


def _missing_latency(_: Request, error: Exception) -> JSONResponse:
    return _problem(HTTPStatus.CONFLICT, str(error))


def _control_plane_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the control plane answered {error.status}")
    return _problem(error.status, error.problem.detail)


def _control_plane_away(_: Request, __: Exception) -> JSONResponse:
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "the control plane does not answer")


def _corrupt(_: Request, error: Exception) -> JSONResponse:
    return _problem(HTTPStatus.BAD_GATEWAY, str(error))
