"""What Prometheus reads of rows, counted when it asks: the same at every replica, and not lost in a restart."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.storage.counts import count
from services.storage.database import Database


def open_registry(database: Database) -> CollectorRegistry:
    """Everything that one process tells."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(RowCollector(database))
    return registry


class RowCollector(Collector):
    """Counts of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        """Nothing: registering must not need the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything that is counted."""
        with self._database.reading() as session:
            counts = count(session)
        jobs = GaugeMetricFamily("fasterseg_jobs", "Jobs by state", labels=["state"])
        for state, number in counts.jobs.items():
            jobs.add_metric([state], number)
        ended = CounterMetricFamily(
            "fasterseg_attempts_ended", "Attempts by outcome; lost: without a word from the worker", labels=["outcome"]
        )
        for outcome, number in counts.ended_attempts.items():
            ended.add_metric([outcome], number)
        wait = counts.longest_wait_seconds
        yield jobs
        yield GaugeMetricFamily("fasterseg_jobs_paused", "Those of the queued and running ones", counts.paused_jobs)
        yield ended
        yield GaugeMetricFamily("fasterseg_attempts_live", "Attempts whose workers may write", counts.live_attempts)
        yield GaugeMetricFamily("fasterseg_longest_wait_seconds", "For how long a job could have started", wait)
        yield GaugeMetricFamily("fasterseg_checkpoints", "Checkpoints that are kept", counts.checkpoints)
        yield GaugeMetricFamily("fasterseg_latency_tables", "Latency tables", counts.latency_tables)
        yield GaugeMetricFamily("fasterseg_blob_bytes", "Bytes of all blobs", counts.blob_bytes)
        yield GaugeMetricFamily("fasterseg_unnamed_blob_bytes", "Those that no row names", counts.unnamed_blob_bytes)
