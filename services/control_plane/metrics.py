"""What Prometheus reads of rows, counted when it asks: the same at every replica, and not lost in a restart."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.client.schemas import FailureClass
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
        jobs = GaugeMetricFamily("fasterseg_jobs", "Jobs by kind and state", labels=["kind", "state"])
        for (kind, state), number in counts.jobs.items():
            jobs.add_metric([kind, state], number)
        ended = CounterMetricFamily(
            "fasterseg_attempts_ended", "Attempts by outcome; lost: without a word from the worker", labels=["outcome"]
        )
        for outcome, number in counts.ended_attempts.items():
            ended.add_metric([outcome], number)
        used = GaugeMetricFamily("fasterseg_project_used_hours", "What all its jobs have worked", labels=["project"])
        allowed = GaugeMetricFamily("fasterseg_project_max_hours", "What all its jobs may work", labels=["project"])
        for project in counts.projects:
            used.add_metric([project.name], project.used_hours)
            if project.max_hours is not None:
                allowed.add_metric([project.name], project.max_hours)
        wait, silence = counts.longest_wait_seconds, counts.longest_silence_seconds
        yield jobs
        yield _by_failure("fasterseg_jobs_failed", "Jobs that failed, by who had to act", counts.failed_jobs)
        yield GaugeMetricFamily("fasterseg_jobs_paused", "Those of the queued and running ones", counts.paused_jobs)
        yield ended
        yield used
        yield allowed
        yield _by_failure("fasterseg_attempts_failed", "Attempts that failed or were lost", counts.failed_attempts)
        yield GaugeMetricFamily("fasterseg_attempts_live", "Attempts whose workers may write", counts.live_attempts)
        yield GaugeMetricFamily("fasterseg_longest_wait_seconds", "For how long a job could have started", wait)
        yield GaugeMetricFamily("fasterseg_longest_silence_seconds", "Since a live worker was heard", silence)
        yield CounterMetricFamily("fasterseg_events", "Events of all jobs", counts.events)
        yield GaugeMetricFamily("fasterseg_checkpoints", "Checkpoints that are kept", counts.checkpoints)
        yield GaugeMetricFamily("fasterseg_latency_tables", "Latency tables", counts.latency_tables)
        yield GaugeMetricFamily("fasterseg_blob_bytes", "Bytes of all blobs", counts.blob_bytes)
        yield GaugeMetricFamily("fasterseg_unnamed_blob_bytes", "Those that no row names", counts.unnamed_blob_bytes)


def _by_failure(name: str, documentation: str, counts: dict[FailureClass, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=["failure"])
    for failure, number in counts.items():
        family.add_metric([failure], number)
    return family
