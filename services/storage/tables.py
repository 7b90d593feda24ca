"""The tables. What must never happen is forbidden here, with the sentence above it, by SQLite and PostgreSQL alike."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.client.schemas import JobKind, JobState, JsonObject, Scope

FIRST_PROJECT = "default"  # of what there was before projects, and of the first token


class AttemptOutcome(StrEnum):
    """How an attempt ended: LOST where the service ended it without a word from its worker."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"  # stopped as was asked, for a pause, too
    LOST = "lost"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always aware and in UTC; SQLite stores it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _one_of(values: type[StrEnum], name: str) -> Enum:
    """A text column that holds one of the values, checked by the database."""
    return Enum(
        values,
        native_enum=False,
        create_constraint=True,
        name=name,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime(), JsonObject: JSON(none_as_null=True)}


class ProjectRow(Table):
    """What an operator has set for a project; one without a row has no limit."""

    __tablename__ = "projects"
    # A project may be given no hours at all, but none are taken from it.
    __table_args__ = (CheckConstraint("max_hours >= 0", name="max_hours_is_not_negative"),)

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    max_hours: Mapped[float | None]  # no job of it starts or goes on once all of them have worked for so long


class TokenRow(Table):
    """What a user shows to be let in. Only the digest of its secret is kept."""

    __tablename__ = "tokens"
    __table_args__ = (Index("ix_tokens_project", "project"),)

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    project: Mapped[str] = mapped_column(String(60))
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[Scope] = mapped_column(_one_of(Scope, "scope"))
    # A secret belongs to one token.
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(260))  # as of a job; null also of the first token
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the hour
    revoked_at: Mapped[datetime | None]


class ProjectDocumentRow(Table):
    """A project sees a latency table or an architecture that it sent or that a job of its made.

    The correction of a table's sums is the project's, too: it is what its own device measured.
    """

    __tablename__ = "project_documents"

    project: Mapped[str] = mapped_column(String(60), primary_key=True)
    document: Mapped[str] = mapped_column(String(64), primary_key=True)
    calibration: Mapped[JsonObject | None]


class BlobRow(Table):
    """A blob that the store holds whole, unless it is going: the row is written after the store has it."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]  # or sent again: it is kept for a while though no row may name it yet
    going_at: Mapped[datetime | None]  # since when the store is removing it, or may have: nothing may name it


class LatencyTableRow(Table):
    """An immutable latency table under the digest of its document."""

    __tablename__ = "latency_tables"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[JsonObject]
    created_at: Mapped[datetime]


class ArchitectureRow(Table):
    """An immutable architecture under the digest of its document."""

    __tablename__ = "architectures"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[JsonObject]
    created_at: Mapped[datetime]


class JobRow(Table):
    """One job. `state` is written by `jobs.move` alone."""

    __tablename__ = "jobs"
    __table_args__ = (
        # A job has an end exactly where it is over.
        CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="final_is_finished"
        ),
        # A job has a reason exactly where it failed.
        CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name="failed_has_reason"),
        # A job that runs or ran has had an attempt.
        CheckConstraint("epoch > 0 OR state NOT IN ('running', 'succeeded')", name="running_has_epoch"),
        # A job may work for some time at least.
        CheckConstraint("max_hours > 0", name="max_hours_is_positive"),
        # One idempotency key makes one job of a project.
        UniqueConstraint("project", "idempotency_key"),
        # Claims read the first of a state, however many are queued.
        Index("ix_jobs_claim", "state", text("priority DESC"), "number"),
        Index("ix_jobs_project", "project", "number"),
    )

    number: Mapped[int] = mapped_column(primary_key=True)  # the order of submission
    id: Mapped[str] = mapped_column(String(12), unique=True)
    project: Mapped[str] = mapped_column(String(60), server_default=FIRST_PROJECT)
    kind: Mapped[JobKind] = mapped_column(_one_of(JobKind, "kind"))
    name: Mapped[str | None] = mapped_column(String(100))
    state: Mapped[JobState] = mapped_column(_one_of(JobState, "state"))
    priority: Mapped[int] = mapped_column(server_default="0")  # the higher is claimed first
    paused_at: Mapped[datetime | None]  # not claimed while it is set; its worker is asked to stop
    max_hours: Mapped[float | None]  # paused once its attempts have worked for so long
    deadline: Mapped[datetime | None]  # paused once it has passed
    spec: Mapped[JsonObject]
    inputs: Mapped[JsonObject]  # named by the submission: input -> digest or job id
    sources: Mapped[JsonObject]  # taken from a parent: input -> job id
    epoch: Mapped[int] = mapped_column(default=0)
    events: Mapped[int] = mapped_column(default=0)  # how many there are: the last one's sequence
    progress: Mapped[JsonObject | None]
    reason: Mapped[JsonObject | None]
    result: Mapped[JsonObject | None]
    latency_table: Mapped[str | None] = mapped_column(ForeignKey("latency_tables.id"))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(260))  # a token's id, or `oidc:` and a JWT's subject
    runnable_at: Mapped[datetime]  # not claimed before; later than created_at after a failure
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]


class JobEdgeRow(Table):
    """`child` runs after `parent` has succeeded."""

    __tablename__ = "job_edges"
    __table_args__ = (
        CheckConstraint("child <> parent", name="not_its_own_parent"),
        Index("ix_job_edges_parent", "parent"),
    )

    child: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    parent: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int]  # in the submission's `after`


class AttemptRow(Table):
    """One attempt at a job, one Ray job. Its worker may write while `finished_at` is null."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job", "epoch"),
        # A job has one live attempt at most.
        Index(
            "one_live_attempt_per_job",
            "job",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        # An attempt has an outcome exactly where it is over.
        CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="finished_has_outcome"),
        CheckConstraint("epoch > 0", name="epoch_is_positive"),
        # An attempt holds devices exactly since it was placed.
        CheckConstraint("(devices IS NULL) = (placed_at IS NULL)", name="placed_has_devices"),
        CheckConstraint("devices > 0", name="devices_is_positive"),
        # No time is given back, and none is counted before an attempt was placed.
        CheckConstraint(
            "device_seconds = 0 OR (device_seconds > 0 AND placed_at IS NOT NULL)", name="placed_has_device_seconds"
        ),
        Index("ix_attempts_logs", "logs"),
    )

    submission_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    epoch: Mapped[int]
    ticket_hash: Mapped[str] = mapped_column(String(64))
    earlier_ticket_hash: Mapped[str | None] = mapped_column(String(64))  # of the one that it replaced
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)  # null until the ticket is redeemed
    lease_until: Mapped[datetime]
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime]  # when it was last handed to Ray
    placed_at: Mapped[datetime | None]  # when its worker was first heard of with devices
    devices: Mapped[int | None]  # GPUs, or 1 without any
    device_seconds: Mapped[float] = mapped_column(server_default="0")  # until its worker was last heard of
    stop_requested_at: Mapped[datetime | None]  # because the project's hours are used; the job is not paused
    finished_at: Mapped[datetime | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(_one_of(AttemptOutcome, "outcome"))
    failure: Mapped[JsonObject | None]  # reason of an outcome FAILED or LOST
    logs: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))  # Ray's, as they were when they were copied
    logs_copied_at: Mapped[datetime | None]  # later than it finished: they are whole


class EventRow(Table):
    """One line of a job's history, append only."""

    __tablename__ = "events"
    # A worker's event is written once, however often it is delivered.
    __table_args__ = (UniqueConstraint("attempt", "worker_sequence"),)

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[str | None] = mapped_column(ForeignKey("attempts.submission_id"))
    worker_sequence: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(40))
    epoch: Mapped[int]
    data: Mapped[JsonObject]
    created_at: Mapped[datetime]


class CheckpointRow(Table):
    """A resumable state of a job; the newest is the one with the largest id."""

    __tablename__ = "checkpoints"
    # A checkpoint is written once, however often it is delivered.
    __table_args__ = (
        UniqueConstraint("attempt", "sha256"),
        Index("ix_checkpoints_job", "job"),
        Index("ix_checkpoints_sha256", "sha256"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[str] = mapped_column(ForeignKey("attempts.submission_id"))
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    progress: Mapped[JsonObject]
    created_at: Mapped[datetime]


class DerivedArchitectureRow(Table):
    """The architecture that a search derived for one role; two searches may derive the same one."""

    __tablename__ = "derived_architectures"
    __table_args__ = (Index("ix_derived_architectures_architecture", "architecture"),)

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    architecture: Mapped[str] = mapped_column(ForeignKey("architectures.id"))


class ArtifactRow(Table):
    """A named file of a succeeded job."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_sha256", "sha256"),)

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    media_type: Mapped[str] = mapped_column(String(100))
