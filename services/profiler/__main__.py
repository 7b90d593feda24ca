"""The profiler's process: deploys its application on a running Ray, and takes it down again on SIGTERM."""

import logging
import signal
import sys
import threading

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from services.client.client import FasterSegClient
from services.profiler.documents import Documents
from services.profiler.serve_app import create_app
from services.profiler.settings import Settings

NAME = "profiler"
PATIENCE_SECONDS = 10.0  # of the application with the control plane


def main() -> None:
    """Runs until SIGTERM or SIGINT. Ray's address comes from RAY_ADDRESS or is that of the Ray of this machine."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings()
    ray.init(address="auto", namespace=NAME, log_to_driver=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        deploy(settings)
        logging.getLogger(__name__).info("serving latency estimates on http://%s:%s", settings.host, settings.port)
        threading.Event().wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(settings: Settings) -> None:
    """Starts Ray Serve and the application, one light replica on a node with the resource `profiler`."""
    control_plane_url = settings.control_plane_url  # the settings' class would be pickled with the function
    token = settings.profiler_token.get_secret_value()

    def build_app() -> FastAPI:
        client = FasterSegClient(control_plane_url, token=token, timeout=PATIENCE_SECONDS)
        return create_app(Documents(client), token)

    serve.start(
        proxy_location=ProxyLocation.EveryNode, http_options=HTTPOptions(host=settings.host, port=settings.port)
    )
    deployment = serve.deployment(
        name=NAME, num_replicas=1, ray_actor_options={"num_cpus": 0, "resources": {"profiler": 0.01}}
    )
    serve.run(deployment(serve.ingress(build_app)()).bind(), name=NAME, route_prefix="/")


if __name__ == "__main__":
    main()
