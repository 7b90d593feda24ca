"""The checkpoints of a job: how often they are made, and which one an attempt resumes from."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from fasterseg_core.checkpoint import CheckpointError, CheckpointKind, load, save
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import CheckpointRef
from services.client.errors import CorruptArtifactError, ProblemError, StoreError
from services.client.schemas import Progress

State = Mapping[str, object]

WORK_PER_CHECKPOINT = 50  # the least work between two checkpoints, in durations of one: they take less than 2 %
NO_SUCH_KEY = "NoSuchKey"  # S3's word for a blob that is not there
SECONDS_WITHIN_EPOCH = 600.0  # the least between two checkpoints where no epoch has ended


class Rhythm:
    """When to keep the state: as often as its measured cost allows.

    The first time is the first that is asked for: it measures the cost.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = 0.0  # that the last time took
        self._ended: float | None = None

    def is_due(self, *, epoch_ended: bool) -> bool:
        """Whether enough work was done since the last time; the end of an epoch is a better place than a step."""
        if self._ended is None:
            return True
        least_seconds = 0.0 if epoch_ended else SECONDS_WITHIN_EPOCH
        return self._clock() - self._ended >= max(WORK_PER_CHECKPOINT * self.seconds, least_seconds)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Measures what is done meanwhile."""
        started = self._clock()
        yield
        self._ended = self._clock()
        self.seconds = self._ended - started


def keep(state: State, kind: CheckpointKind, progress: Progress, attempt: AttemptClient) -> int:
    """Makes a checkpoint; its size, once it is on this machine's disk, from which it is delivered."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
        path = Path(folder) / "state.safetensors"
        save(state, kind, path)
        attempt.checkpoint(path, progress)
        return path.stat().st_size


def resume(
    load_state: Callable[[State], None],
    kind: CheckpointKind,
    checkpoints: Sequence[CheckpointRef],
    attempt: AttemptClient,
) -> Progress | None:
    """Loads the first of the checkpoints that can be read; returns where the job was then, None without checkpoints.

    Each that cannot be read leaves an event.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
    """
    for checkpoint in checkpoints:
        try:
            state = _read(checkpoint, kind, attempt)
        except (CheckpointError, CorruptArtifactError, ProblemError, StoreError) as error:
            if isinstance(error, ProblemError) and error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                raise
            if isinstance(error, StoreError) and error.code != NO_SUCH_KEY:  # 404 is also what a wrong address answers
                raise
            attempt.event("checkpoint_unreadable", {"sha256": checkpoint.sha256, "reason": str(error)})
        else:
            load_state(state)
            return checkpoint.progress
    if checkpoints:
        raise CheckpointError(
            f"none of this job's {len(checkpoints)} checkpoints can be read, as its events say one by one; "
            "submit the job again to start from the beginning"
        )
    return None


def _read(checkpoint: CheckpointRef, kind: CheckpointKind, attempt: AttemptClient) -> State:
    with attempt.checkpoint_file(checkpoint) as file:
        return load(Path(f"/dev/fd/{file.fileno()}"), kind)  # it has no other name
