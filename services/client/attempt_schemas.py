"""The REST contract with workers: how an attempt begins, what it reports, and how it ends."""

from typing import Self

from pydantic import Field, model_validator

from .schemas import (
    Artifact,
    JobId,
    JobKind,
    JsonObject,
    Progress,
    Reason,
    RoleName,
    Schema,
    SentObject,
    Sha256,
)

USAGE = "usage"  # the kind of the event that says what an attempt took


class TicketRedemption(Schema):
    """The ticket that Ray carried to the worker. It works once: the one that Ray's job list shows is worth nothing."""

    ticket: str = Field(min_length=16, max_length=200)


class CheckpointRef(Schema):
    """A resumable state: one blob, and the progress it stands for."""

    sha256: Sha256
    size: int = Field(ge=0)
    progress: Progress


class ResolvedInputs(Schema):
    """The inputs of an attempt: digests of documents and of the blobs of trained networks."""

    latency_table: Sha256 | None = None
    architecture: Sha256 | None = None
    network: Sha256 | None = None
    teacher: Sha256 | None = None


class Assignment(Schema):
    """What a worker needs for one attempt; `token` authorises it until its lease is lost."""

    token: str
    job: JobId
    kind: JobKind
    epoch: int
    spec: JsonObject
    inputs: ResolvedInputs
    checkpoints: list[CheckpointRef]  # newest first; an older one counts where the newer cannot be read
    heartbeat_seconds: float


class Heartbeat(Schema):
    """That a worker lives, where it is, and what it holds: its hours count from the first heartbeat with `devices`."""

    progress: Progress | None = None
    devices: int | None = Field(default=None, ge=1, le=10_000)  # GPUs, or 1 without any; none while it waits for them


class AttemptStatus(Schema):
    """The answer to a worker's writes: whether it should stop."""

    stop: bool  # the job was cancelled or paused


class PhaseUsage(Schema):
    """The steps of one phase, the evaluations between its epochs, and the time that each took in all."""

    steps: int = Field(ge=0)
    step_seconds: float = Field(ge=0)
    evaluations: int = Field(ge=0)
    evaluation_seconds: float = Field(ge=0)


class Usage(Schema):
    """What an attempt took on its machine: `seconds` from its beginning to its end, phases and the rest."""

    device: str = Field(max_length=200)
    seconds: float = Field(ge=0)
    phases: dict[str, PhaseUsage]
    peak_memory_bytes: int = Field(ge=0)
    peak_gpu_memory_bytes: int | None = Field(default=None, ge=0)  # of torch's tensors


class WorkerEvent(Schema):
    """One event of a worker; `worker_sequence` makes a repeated delivery harmless."""

    worker_sequence: int = Field(ge=0)
    kind: str = Field(max_length=40, pattern="^[a-z_]+$")
    data: SentObject

    @model_validator(mode="after")
    def _usage_is_one(self) -> Self:
        if self.kind == USAGE:
            Usage.model_validate(self.data)
        return self


class WorkerEvents(Schema):
    items: list[WorkerEvent] = Field(max_length=1000)


class AttemptSuccess(Schema):
    """Everything that a job made, written in one transaction."""

    result: SentObject
    artifacts: list[Artifact] = Field(default_factory=list, max_length=100)
    architectures: dict[RoleName, SentObject] = Field(default_factory=dict)
    latency_table: SentObject | None = None
    calibration: SentObject | None = None  # of that table


class AttemptFailure(Schema):
    reason: Reason
