"""The profiler's process: deploys its application on a running Ray, and takes it down again on SIGTERM."""

import logging
import signal
import sys
import threading

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from services.client.client import FasterSegClient
from services.profiler.documents import Documents
from services.profiler.serve_app import create_app
from services.profiler.settings import Settings
from services.telemetry.logs import start_logging
from services.telemetry.settings import open_traces

NAME = "profiler"
PATIENCE_SECONDS = 10.0  # of the application with the control plane

_log = logging.getLogger(__name__)


def main() -> None:
    """Runs until SIGTERM or SIGINT. Ray's address comes from RAY_ADDRESS or is that of the Ray of this machine."""
    settings = Settings()
    start_logging(settings.log_format, settings.log_level)
    ray.init(address="auto", namespace=NAME, log_to_driver=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        deploy(settings)
        _log.info("serving latency estimates", extra={"address": f"http://{settings.host}:{settings.port}"})
        threading.Event().wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(settings: Settings) -> None:
    """Starts Ray Serve and the application, one light replica on a node with the resource `profiler`."""
    control_plane_url = settings.control_plane_url  # the settings' class would be pickled with the function
    token = settings.profiler_token.get_secret_value()
    log_format, log_level = settings.log_format, settings.log_level
    otlp_endpoint = settings.otlp_endpoint

    def build_app() -> FastAPI:
        start_logging(log_format, log_level)  # of the replica's process
        client = FasterSegClient(control_plane_url, token=token, timeout=PATIENCE_SECONDS)
        return create_app(Documents(client), token, open_traces(otlp_endpoint, "profiler"))

    serve.start(
        proxy_location=ProxyLocation.EveryNode, http_options=HTTPOptions(host=settings.host, port=settings.port)
    )
    deployment = serve.deployment(
        name=NAME,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": {"profiler": 0.01}},
        logging_config=LoggingConfig(encoding=log_format.upper(), enable_access_log=False),  # requests are logged by us
    )
    serve.run(deployment(serve.ingress(build_app)()).bind(), name=NAME, route_prefix="/")


if __name__ == "__main__":
    main()
