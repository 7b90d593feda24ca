"""What a search or a retraining shows Prometheus, through Ray's agent on its node: a worker has no address of its own.

Ray puts `ray_` before each name. The gauges of a job go a while after its end, its steps stay until the node stops.
"""

from ray.util.metrics import Gauge, Histogram

from fasterseg_core.reports import EpochReport, StepReport
from services.client.schemas import JobKind

TAGS = ("job", "kind")
STEPS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]  # seconds, of the histogram's buckets


class JobMetrics:
    """The metrics of one job."""

    def __init__(self, job: str, kind: JobKind) -> None:
        tags = {"job": job, "kind": kind.value}

        def gauge(name: str, description: str) -> Gauge:
            made: Gauge = Gauge(f"fasterseg_worker_{name}", description, TAGS)
            made.set_default_tags(tags)
            return made

        self._step_seconds = Histogram("fasterseg_worker_step_seconds", "One optimisation step", STEPS, TAGS)
        self._step_seconds.set_default_tags(tags)
        self._epoch = gauge("epoch", "The epoch that runs, from 1 in each phase")
        self._loss = gauge("loss", "The last step's")
        self._miou = gauge("miou", "The last epoch's, on the hold-out")
        self._latency = gauge("latency_ms", "The last epoch's, of the student derived then")
        self._checkpoint_seconds = gauge("checkpoint_seconds", "For how long the last checkpoint held up the work")
        self._checkpoint_bytes = gauge("checkpoint_bytes", "Of the last checkpoint")
        self._waiting = gauge("waiting", "Events and checkpoints that wait to be delivered")

    def step(self, report: StepReport, seconds: float, waiting: int) -> None:
        """A step that took so long, while so much waited to be delivered."""
        self._step_seconds.observe(seconds)
        self._epoch.set(report.epoch)
        self._loss.set(report.loss)
        self._waiting.set(waiting)

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended."""
        if report.miou is not None:
            self._miou.set(report.miou)
        if report.latency_ms is not None:
            self._latency.set(report.latency_ms)

    def checkpoint(self, seconds: float, size: int) -> None:
        """A checkpoint is on this machine's disk."""
        self._checkpoint_seconds.set(seconds)
        self._checkpoint_bytes.set(size)
