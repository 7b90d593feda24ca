"""What a worker speaks to, and the clock that it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryFile

from fasterseg_core.checkpoint import CheckpointKind, load
from services.client.schemas import CheckpointRef, JsonObject, Progress

SEARCH = CheckpointKind.SEARCH


def a_progress(**values: object) -> Progress:
    defaults = {"phase": "search", "epoch": 1, "epochs": 1, "step": 1, "steps": 2, "fraction": 0.5}
    return Progress.model_validate(defaults | values)


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeAttempt:
    """Keeps what a worker tells, serves what it is given, and asks to stop after so many progress reports."""

    def __init__(self, stop_after: int | None = None, blobs: dict[str, bytes | Exception] | None = None) -> None:
        self.told: list[Progress] = []
        self.events: list[tuple[str, JsonObject]] = []
        self.checkpoints: list[tuple[dict[str, object], Progress]] = []
        self._stop_after = stop_after
        self._blobs = blobs or {}

    @property
    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def event(self, kind: str, data: JsonObject) -> None:
        self.events.append((kind, data))

    def checkpoint(self, path: Path, progress: Progress) -> None:
        self.checkpoints.append((load(path, SEARCH), progress))

    @contextmanager
    def checkpoint_file(self, checkpoint: CheckpointRef) -> Iterator[BufferedIOBase]:
        blob = self._blobs[checkpoint.sha256]
        if isinstance(blob, Exception):
            raise blob
        with TemporaryFile() as file:
            file.write(blob)
            file.flush()
            yield file
