"""What a worker speaks to, and the clock that it reads."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryFile

from fasterseg_core.checkpoint import CheckpointKind, load
from fasterseg_core.reports import EpochReport, StepReport
from services.client.attempt_schemas import AttemptSuccess, CheckpointRef, ResolvedInputs
from services.client.schemas import JobKind, JsonObject, Progress
from services.workers.job import Job

SEARCH = CheckpointKind.SEARCH


def a_progress(**values: object) -> Progress:
    defaults = {"phase": "search", "epoch": 1, "epochs": 1, "step": 1, "steps": 2, "fraction": 0.5}
    return Progress.model_validate(defaults | values)


def a_job(**values: object) -> Job:
    """A profile job without inputs, as the driver would give it to a worker; whoever measures names a `lock_dir`."""
    defaults: dict[str, object] = {
        "kind": JobKind.PROFILE,
        "metrics": FakeMetrics(),
        "spec": {},
        "inputs": ResolvedInputs(),
        "checkpoints": [],
        "data_root": None,
        "data_memory_mb": 0,
        "tensorboard": None,
        "lock_dir": Path(),
        "cpus": 1,
    }
    return Job(**(defaults | values))


class FakeMetrics:
    """Keeps what Prometheus would be shown."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float, int]] = []  # epoch, seconds, waiting
        self.epochs: list[EpochReport] = []
        self.checkpoints: list[tuple[float, int]] = []

    def step(self, report: StepReport, seconds: float, waiting: int) -> None:
        self.steps.append((report.epoch, seconds, waiting))

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def checkpoint(self, seconds: float, size: int) -> None:
        self.checkpoints.append((seconds, size))


class FakeAttempt:
    """Keeps what a worker tells, serves what it is given, and asks to stop after so many progress reports."""

    def __init__(
        self,
        stop_after: int | None = None,
        blobs: dict[str, bytes | Exception] | None = None,
        kind: CheckpointKind = SEARCH,
        latency_tables: dict[str, JsonObject] | None = None,
        calibrations: dict[str, JsonObject] | None = None,
    ) -> None:
        self.told: list[Progress] = []
        self.events: list[tuple[str, JsonObject]] = []
        self.checkpoints: list[tuple[dict[str, object], Progress]] = []
        self.uploaded: dict[str, bytes] = {}
        self.success: AttemptSuccess | None = None
        self._stop_after = stop_after
        self._blobs = blobs or {}
        self._kind = kind
        self.waiting = 0
        self._latency_tables = latency_tables or {}
        self._calibrations = calibrations or {}

    @property
    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def event(self, kind: str, data: JsonObject) -> None:
        self.events.append((kind, data))

    def checkpoint(self, path: Path, progress: Progress) -> None:
        self.checkpoints.append((load(path, self._kind), progress))

    def latency_table(self, table_id: str) -> JsonObject:
        return self._latency_tables[table_id]

    def calibration(self, table_id: str) -> JsonObject | None:
        return self._calibrations.get(table_id)

    def download(self, sha256: str) -> bytes:
        blob = self._blobs[sha256]
        assert isinstance(blob, bytes)
        return blob

    def upload(self, data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        self.uploaded[digest] = data
        return digest, len(data)

    def succeed(self, success: AttemptSuccess) -> None:
        self.success = success

    @contextmanager
    def checkpoint_file(self, checkpoint: CheckpointRef) -> Iterator[BufferedIOBase]:
        blob = self._blobs[checkpoint.sha256]
        if isinstance(blob, Exception):
            raise blob
        with TemporaryFile() as file:
            file.write(blob)
            file.flush()
            yield file
