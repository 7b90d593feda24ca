"""What a job function is given: `run(job: Job, attempt: AttemptClient) -> None`.

It ends by `attempt.succeed(...)`, or by Stopped once `attempt.should_stop` is true; everything else it lets pass.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter

from services.client.attempt_schemas import CheckpointRef, ResolvedInputs
from services.client.schemas import JobKind, JsonObject
from services.workers.metrics import JobMetrics

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt's work: the stored spec, complete, the digests of its inputs, and the states to resume from."""

    kind: JobKind
    metrics: JobMetrics
    spec: JsonObject
    inputs: ResolvedInputs
    checkpoints: list[CheckpointRef]  # newest first
    data_root: Path | None  # data sets are folders in it, by their names
    data_memory_mb: int  # a data set whose pixels take less is decoded once
    tensorboard: Path | None  # the folder of this job's event file, where it is watched live
    lock_dir: Path  # of the devices that jobs measure on
    cpus: int

    @property
    def device(self) -> torch.device:
        """Where tensors live: the GPU that Ray gave this job, or the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def config_of(job: Job, kind: type[T]) -> T:
    """The job's spec as the configuration of its kind; the control plane has checked it already."""
    return TypeAdapter(kind).validate_python(job.spec, extra="forbid")


class Stopped(Exception):
    """The job function ended early, as `attempt.should_stop` asked."""
