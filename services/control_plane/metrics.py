"""What Prometheus reads at /metrics: requests of this process, and jobs, attempts and stored things as the rows say.

Figures from rows are the same at every replica and survive a restart; they are counted when they are asked for.
"""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.storage.database import Database
from services.storage.figures import count

UNMATCHED = "unmatched"  # the route of requests for paths that do not exist


def open_registry(database: Database) -> CollectorRegistry:
    """Everything that one process tells."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(RowCollector(database))
    return registry


class RowCollector(Collector):
    """Figures counted in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        """Nothing: registering must not need the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All figures, of one moment."""
        with self._database.reading() as session:
            figures = count(session)
        jobs = GaugeMetricFamily("fasterseg_jobs", "Jobs by state", labels=["state"])
        for state, number in figures.jobs.items():
            jobs.add_metric([state], number)
        ended = CounterMetricFamily(
            "fasterseg_attempts_ended", "Attempts by outcome; lost: without a word from the worker", labels=["outcome"]
        )
        for outcome, number in figures.ended_attempts.items():
            ended.add_metric([outcome], number)
        wait = figures.longest_wait_seconds
        yield jobs
        yield ended
        yield GaugeMetricFamily("fasterseg_attempts_live", "Attempts whose workers may write", figures.live_attempts)
        yield GaugeMetricFamily("fasterseg_longest_wait_seconds", "For how long a job could have started", wait)
        yield GaugeMetricFamily("fasterseg_checkpoints", "Checkpoints that are kept", figures.checkpoints)
        yield GaugeMetricFamily("fasterseg_latency_tables", "Latency tables", figures.latency_tables)
        yield GaugeMetricFamily("fasterseg_blob_bytes", "Bytes of all blobs", figures.blob_bytes)
        yield GaugeMetricFamily("fasterseg_unnamed_blob_bytes", "Those that no row names", figures.unnamed_blob_bytes)


class RequestTimes:
    """Times each request until its answer begins: a stream of events may last for hours."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "fasterseg_http_request_seconds",
            "From a request to the beginning of its answer",
            labelnames=["method", "route", "status"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", UNMATCHED)
                labels = (scope["method"], route, str(message["status"]))
                self._seconds.labels(*labels).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, timed)
