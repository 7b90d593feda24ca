"""The control plane's process: migrates the database, then serves, with dispatcher and what else runs on beside."""

import argparse
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from services.control_plane.app import create_app
from services.control_plane.collection_loop import collect_until
from services.control_plane.dispatcher import Dispatcher
from services.control_plane.event_stream import EventStreams
from services.control_plane.fsck import fsck
from services.control_plane.identity_provider import IdentityProvider
from services.control_plane.log_loop import copy_logs_until
from services.control_plane.parts import Parts
from services.control_plane.ray_jobs import RayCluster
from services.control_plane.schema_check import check_schema
from services.control_plane.settings import Settings
from services.control_plane.signing_keys import SigningKeys
from services.control_plane.store import open_links, open_store, require_usable
from services.storage.database import migrate, open_database
from services.storage.tokens import keep_first_token
from services.telemetry.logs import start_logging
from services.telemetry.settings import open_traces


def main() -> None:
    """Serves, or compares: rows with the store, `fsck`, or the schema with the tables that are declared."""
    parser = argparse.ArgumentParser(prog="python -m services.control_plane")
    parser.add_argument("command", nargs="?", choices=["serve", "fsck", "check-schema"], default="serve")
    command = parser.parse_args().command
    settings = _settings()
    match command:
        case "fsck":
            sys.exit(fsck(settings))
        case "check-schema":
            sys.exit(check_schema(settings))
    _serve(settings)


def _settings() -> Settings:
    """Those of the environment; where some are missing or wrong, their names end the program, without their values."""
    try:
        return Settings()
    except ValidationError as error:
        for item in error.errors():
            field = ".".join(map(str, item["loc"]))
            name = f"FASTERSEG_{field.upper()}" if field in Settings.model_fields else field or "settings"
            print(f"{name}: {item['msg']}", file=sys.stderr)
        sys.exit(2)


def _serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT; requests and the dispatcher's tick in progress are finished first."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: sys.exit(0))  # uvicorn raises it again when it has shut down
    start_logging(settings.log_format, settings.log_level)
    parts = open_parts(settings)
    require_usable(parts.store)
    migrate(parts.database)
    if settings.first_token_path is not None:
        with parts.database.writing.begin() as session:
            keep_first_token(session, settings.first_token_path.read_text().strip())
    app = create_app(parts, _dispatching(parts))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=10,
        http="h11",  # the only parser with a limit for heads; uvicorn prefers httptools where that is installed
        h11_max_incomplete_event_size=64 * 1024,
        access_log=False,
        log_config=None,
    )
    server = _Server(config, app.state.streams)
    server.run()
    if not server.started:
        sys.exit(1)


class _Server(uvicorn.Server):
    """Waits at its end for answers that are not complete, which streams of events are only once they are told to be."""

    def __init__(self, config: uvicorn.Config, streams: EventStreams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.end()
        await super().shutdown(sockets)


def open_parts(settings: Settings) -> Parts:
    """The parts that the settings name; none is spoken to yet."""
    return Parts(
        settings=settings,
        database=open_database(settings.database),
        store=open_store(settings),
        user_links=open_links(settings, settings.s3_public_url),
        worker_links=open_links(settings, settings.s3_worker_url),
        ray=RayCluster(
            address=settings.ray_address,
            token_path=settings.ray_token_path,
            worker_command=settings.worker_command,
            worker_url=settings.worker_url,
        ),
        profiler=httpx.Client(
            base_url=settings.profiler_url,
            headers={"Authorization": f"Bearer {settings.profiler_token.get_secret_value()}"},
            timeout=30.0,
            trust_env=False,
        ),
        identity_provider=_open_identity_provider(settings),
        traces=open_traces(settings.otlp_endpoint, "control-plane"),
    )


def _open_identity_provider(settings: Settings) -> IdentityProvider | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    return IdentityProvider(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        keys=SigningKeys(
            settings.oidc_issuer, httpx.Client(timeout=5.0), refresh_seconds=settings.oidc_refresh_seconds
        ),
        project_claim=settings.oidc_project_claim,
        scope_claim=settings.oidc_scope_claim,
        scopes=settings.oidc_scopes,
    )


def _dispatching(parts: Parts) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        dispatcher = Dispatcher(
            database=parts.database,
            ray=parts.ray,
            instance=parts.settings.instance,
            max_running_jobs=parts.settings.max_running_jobs,
            max_running_jobs_per_project=parts.settings.max_running_jobs_per_project,
            cancel_grace_seconds=parts.settings.cancel_grace_seconds,
            registry=app.state.registry,
            traces=parts.traces,
        )
        min_age = timedelta(hours=parts.settings.blob_hours)
        threads = [
            threading.Thread(
                target=dispatcher.run, args=(stop, parts.runnable, parts.settings.dispatch_seconds), daemon=True
            ),
            threading.Thread(
                target=copy_logs_until,
                args=(stop, parts.database, parts.store, parts.ray),
                kwargs={"seconds": parts.settings.dispatch_seconds},
                daemon=True,
            ),
            threading.Thread(target=collect_until, args=(stop, parts.database, parts.store, min_age), daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield
        stop.set()
        parts.runnable.set()
        for thread in threads:
            thread.join(timeout=30)
        if parts.traces is not None:
            parts.traces.close()

    return lifespan


if __name__ == "__main__":
    main()
