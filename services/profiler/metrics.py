"""What Prometheus reads of the profiler: how long estimates take, of how many networks, and the documents it holds."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.profiler.documents import Documents

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class ProfilerMetrics:
    """Everything that one replica tells."""

    def __init__(self, documents: Documents) -> None:
        self.registry = CollectorRegistry()
        self.estimate_seconds = Histogram(
            "fasterseg_estimate_seconds", "Of the architectures of one request", registry=self.registry
        )
        self.estimate_batch = Histogram(
            "fasterseg_estimate_batch", "Architectures of one request", buckets=BATCHES, registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(DocumentCollector(documents))


class DocumentCollector(Collector):
    """Counts of the documents that were asked for."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def collect(self) -> Iterator[Metric]:
        """Everything that is counted."""
        reads = CounterMetricFamily(
            "fasterseg_documents_read", "Documents by whether they were held already", labels=["document", "cache"]
        )
        for document, cache in self._documents.caches().items():
            reads.add_metric([document, "hit"], cache.hits)
            reads.add_metric([document, "miss"], cache.misses)
        yield reads
        rows = CounterMetricFamily("fasterseg_table_rows", "Rows of the tables that were fetched", labels=["state"])
        for state, number in self._documents.rows.items():
            rows.add_metric([state], number)
        yield rows
