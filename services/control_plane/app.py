"""The REST application: routers under /api/v1, problems, limits, metrics, and the documentation at /docs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.control_plane.dependencies import ReadSession
from services.control_plane.event_stream import EventStreams
from services.control_plane.health import HealthChecks
from services.control_plane.metrics import open_registry
from services.control_plane.parts import Parts
from services.control_plane.problems import RESPONSES, BodyLimit, add_problem_handlers
from services.control_plane.rate_limits import RateLimits
from services.control_plane.routers import (
    architectures,
    artifacts,
    attempts,
    health,
    jobs,
    latency_tables,
    plans,
    projects,
    tokens,
)
from services.control_plane.security_headers import SecurityHeaders
from services.telemetry.requests import WatchedRequests

PREFIX = "/api/v1"


def create_app(parts: Parts, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None) -> FastAPI:
    """The application on its parts. Its documentation is served from this machine, not from a content network."""
    app = FastAPIOffline(title="FasterSeg", summary="Architecture search for real-time segmentation", lifespan=lifespan)
    app.state.parts = parts
    app.state.health = HealthChecks(parts)
    app.state.streams = EventStreams(parts.database, parts.identity_provider)
    app.state.registry = registry = open_registry(parts.database)
    add_problem_handlers(app)
    app.add_middleware(
        BodyLimit,
        max_document_bytes=parts.settings.max_document_bytes,
        max_blob_bytes=parts.settings.max_blob_bytes,
        blob_prefix=f"{PREFIX}/blobs/",
    )
    app.add_middleware(RateLimits, settings=parts.settings, prefix=PREFIX)
    app.add_middleware(SecurityHeaders)
    # the outermost: what is refused was a request, too
    app.add_middleware(WatchedRequests, registry=registry, traces=parts.traces)
    for module in (jobs, plans, architectures, latency_tables, artifacts, attempts, tokens, projects, health):
        app.include_router(module.router, prefix=PREFIX, responses=RESPONSES)

    @app.get("/metrics", include_in_schema=False)
    def metrics(_: ReadSession) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app
