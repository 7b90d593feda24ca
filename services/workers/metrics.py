"""What a search or a retraining shows Prometheus, through Ray's agent on its node: a worker has no address of its own.

Ray puts `ray_` before each name, and forgets a value that is not set again for a while: all are, at every step, and
those of a job are gone soon after its end. Ray's histograms would stay, with sums that it estimates from the buckets.
"""

from ray.util.metrics import Gauge

from fasterseg_core.reports import EpochReport, StepReport
from services.client.schemas import JobKind

GAUGES = {
    "step_seconds": "What the last step took, without a checkpoint",
    "epoch": "The epoch that runs, from 1 in each phase",
    "loss": "The last step's",
    "miou": "The last epoch's, on the hold-out",
    "latency_ms": "The last epoch's, of the student derived then",
    "checkpoint_seconds": "For how long the last checkpoint held up the work",
    "checkpoint_bytes": "Of the last checkpoint",
    "waiting": "Events and checkpoints that wait to be delivered",
}


class JobMetrics:
    """The metrics of one job."""

    def __init__(self, job: str, kind: JobKind) -> None:
        self._tags = {"job": job, "kind": kind.value}
        self._gauges = {
            name: Gauge(f"fasterseg_worker_{name}", description, tuple(self._tags))
            for name, description in GAUGES.items()
        }
        self._values: dict[str, float] = {}

    def step(self, report: StepReport, seconds: float, waiting: int) -> None:
        """A step that took so long, while so much waited to be delivered."""
        self._values |= {"step_seconds": seconds, "epoch": report.epoch, "loss": report.loss, "waiting": waiting}
        for name, value in self._values.items():
            self._gauges[name].set(value, self._tags)

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended."""
        if report.miou is not None:
            self._values["miou"] = report.miou
        if report.latency_ms is not None:
            self._values["latency_ms"] = report.latency_ms

    def checkpoint(self, seconds: float, size: int) -> None:
        """A checkpoint is on this machine's disk."""
        self._values |= {"checkpoint_seconds": seconds, "checkpoint_bytes": size}
