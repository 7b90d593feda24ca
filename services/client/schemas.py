"""The REST contract with users: what they send to the control plane and what it answers."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticSerializationError, to_json


def _worded(words: str) -> WrapValidator:
    """Says what a text must be, where pydantic would name the pattern that it does not match."""

    def check(value: object, matched: ValidatorFunctionWrapHandler) -> object:
        try:
            return matched(value)
        except ValidationError:
            raise ValueError(f"must be {words}") from None

    return WrapValidator(check)


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"),
    _worded("1 to 100 letters, digits, spaces, dots, _ or -, the first a letter or digit"),
]
Project = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,59}$"),
    _worded("1 to 60 small letters, digits or -, the first a letter"),
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), _worded("64 hexadecimal digits in small letters")]
JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{12}$"), _worded("12 digits and small letters")]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{12}$"), _worded("12 digits and small letters")]
SubmissionId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,29}-[0-9a-z]{12}-[0-9]{1,9}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}$")]
MediaType = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}/[a-z0-9.+-]{1,79}$")]  # a header of answers
JsonObject = dict[str, JsonValue]
Item = TypeVar("Item")


def _written_out(value: object) -> object:
    """A number would be taken for seconds since 1970."""
    if isinstance(value, datetime) or "T" in str(value).upper():
        return value
    raise ValueError("write date, time and zone, as in 2026-12-01T08:00:00Z")


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _encodable(value: JsonObject) -> JsonObject:
    """JSON's escapes can say half a character, which no encoding has."""
    try:
        to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        raise ValueError("a text has half of a surrogate pair, such as \\ud800: send whole characters") from None
    return value


SentObject = Annotated[JsonObject, AfterValidator(_encodable)]
Deadline = Annotated[
    AwareDatetime,
    Field(gt=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
    BeforeValidator(_written_out),
    AfterValidator(_in_utc),
]
MaxHours = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
ProjectHours = Annotated[float, Field(ge=0, le=1_000_000_000, allow_inf_nan=False)]


def shown_hours(hours: float) -> str:
    """Hours as messages and tables say them, to a third of a second."""
    return f"{round(hours, 4):.10g}"


class Schema(BaseModel):
    """Unknown fields are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Schema, Generic[Item]):
    """A part of a list, the newest first; asking again with the cursor gives the next one."""

    items: list[Item]
    next_cursor: str | None  # null: this is the last


class JobKind(StrEnum):
    PROFILE = "profile"
    SEARCH = "search"
    RETRAIN = "retrain"
    EVALUATE = "evaluate"
    EXPORT = "export"


class JobState(StrEnum):
    """Cancel is a request and pretrain, search, derive are progress: neither is a state."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state never changes again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Preset(StrEnum):
    """What a spec starts from: the paper's configuration, or one that two CPU cores finish in minutes."""

    PAPER = "paper"
    QUICK = "quick"


class FailureClass(StrEnum):
    """Who has to act: the user, or nobody because the service tries again."""

    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    INFRASTRUCTURE = "infrastructure"
    PARENT_FAILED = "parent_failed"


class Scope(StrEnum):
    """What a token may do, each also what those before it may; an operator gives tokens and hours of any project."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"
    OPERATOR = "operator"

    def covers(self, needed: "Scope") -> bool:
        """Whether a token of this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class Inputs(Schema):
    """Ids that a job reads; what is left out is taken from the jobs in `after`.

    latency_table and architecture are digests, network and teacher are ids of succeeded retrain jobs. The latency_table
    of a profile job is one of the same fingerprint, whose measured rows are taken over; it is never taken from `after`.
    """

    latency_table: Sha256 | None = None
    architecture: Sha256 | None = None
    network: JobId | None = None
    teacher: JobId | None = None


class JobSubmission(Schema):
    """A job to run once all jobs in `after` have succeeded; `spec` says where its configuration leaves the preset."""

    kind: JobKind
    preset: Preset = Preset.PAPER
    spec: SentObject = Field(default_factory=dict)
    after: list[JobId] = Field(default_factory=list, max_length=16)
    inputs: Inputs = Field(default_factory=Inputs)
    name: Name | None = None
    priority: int = Field(default=0, ge=-100, le=100)  # of two jobs that can run the higher starts first
    max_hours: MaxHours | None = None  # of work, times the GPUs that it holds: then the job is paused
    deadline: Deadline | None = None  # when the job is paused, unless it is over


class Limits(Schema):
    """Limits of a job to set; one that is left out stays as it is."""

    max_hours: MaxHours | None = None
    deadline: Deadline | None = None


class Progress(Schema):
    """Where a running job is; step counts within the epoch from 1, seconds_left is the worker's estimate."""

    phase: str = Field(max_length=40)
    epoch: int = Field(ge=0)
    epochs: int = Field(ge=0)
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)  # of the whole job
    seconds_left: float | None = Field(default=None, ge=0)
    loss: float | None = None
    latency_ms: float | None = None
    miou: float | None = None


class Reason(Schema):
    """Why a job failed."""

    failure: FailureClass
    message: str = Field(max_length=4000)


class Artifact(Schema):
    """A named file of a job, stored under its sha256."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    sha256: Sha256
    size: int = Field(ge=0)
    media_type: MediaType


class Job(Schema):
    id: JobId
    kind: JobKind
    name: str | None
    state: JobState
    spec: JsonObject  # complete: every default is written out
    after: list[JobId]
    inputs: Inputs
    epoch: int  # attempts so far; 0 before the first
    ray_submission_id: str | None  # of the latest attempt
    progress: Progress | None
    reason: Reason | None
    result: JsonObject | None
    latency_table: Sha256 | None  # made by this job
    architectures: dict[RoleName, Sha256]  # made by this job: role -> id
    artifacts: list[Artifact]
    priority: int
    max_hours: float | None
    deadline: datetime | None
    used_hours: float  # of all attempts until their workers were last heard of, times their GPUs; 1 without any
    limit_reached: str | None  # which limit, its own or its project's, keeps the job from running, and how to go on
    paused: bool  # queued and not started, or running and asked to stop for now
    cancel_requested: bool
    created_at: datetime
    created_by: str | None  # the id of a token, or `oidc:` and the user's id there; null where nobody knows
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(Page[Job]):
    pass


class ProjectLimits(Schema):
    """What an operator sets for a project, in the place of what was set before."""

    max_hours: ProjectHours | None  # that its jobs may work in all, times the GPUs that they hold; null: no limit


class ProjectRecord(Schema):
    name: Project
    max_hours: float | None
    used_hours: float  # of all its jobs, as `used_hours` of a job counts
    left_hours: float | None  # null without a limit


class ProjectPage(Schema):
    items: list[ProjectRecord]


class PlannedInput(Schema):
    """What a job would read."""

    name: str
    id: str | None  # a digest, or of network and teacher the id of a retrain job; null where it is not made yet
    job: JobId | None  # of `after`, which makes it; null where the submission names it
    about: str | None  # a latency table's engine, device, precision and resolution


class PlannedRows(Schema):
    """The rows of the table that a profile job would make."""

    to_measure: int
    taken_over: int  # from the table in `inputs`, if its fingerprint turns out to be the same


class PlannedPhase(Schema):
    name: str
    steps: int | None  # null where an epoch is one pass over data that no job has counted


class CostEstimate(Schema):
    """What a job would take once it has started, as an earlier job of the same shape took.

    Of the same shape: of this kind and project, with equal settings as far as these cost time or memory.
    """

    seconds: float | None
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None  # of torch's tensors; null also where there was no GPU
    job: JobId | None  # the earlier one
    device: str | None  # on which that ran
    reason: str | None  # why seconds is null, and how to change that


class Plan(Schema):
    """What a submission would be: nothing was stored, and nothing runs."""

    kind: JobKind
    spec: JsonObject  # complete: every default is written out
    inputs: list[PlannedInput]
    waits_for: list[JobId]  # of `after`, those that have not succeeded yet
    missing_rows: list[str]  # of a search: keys that its latency table lacks or has quarantined; it would be refused
    rows: PlannedRows | None  # of a profile job
    phases: list[PlannedPhase]  # what steps are counted in; none of an evaluate or export job
    steps: int | None  # in all
    estimate: CostEstimate
    project: ProjectRecord  # whose hours the job would use


class Event(Schema):
    """One line of a job's history.

    Kinds: queued, started, warning, epoch, checkpoint, checkpoint_unreadable, rows_dropped, usage, requeued,
    pause_requested, paused, limits_set, resumed, cancel_requested, succeeded, failed, cancelled.
    """

    sequence: int
    kind: str
    epoch: int
    data: JsonObject
    created_at: datetime


class EventPage(Schema):
    items: list[Event]


class ArchitectureSubmission(Schema):
    document: SentObject


class ArchitectureRecord(Schema):
    id: Sha256
    document: JsonObject
    job: JobId | None  # the search that derived it
    role: str | None
    created_at: datetime


class ArchitecturePage(Page[ArchitectureRecord]):
    pass


class LatencyTableSubmission(Schema):
    document: SentObject


class LatencyTableSummary(Schema):
    id: Sha256
    fingerprint: JsonObject
    rows: int
    quarantined: int  # of these rows
    job: JobId | None  # the first that measured it
    created_at: datetime


class LatencyTablePage(Page[LatencyTableSummary]):
    pass


class CalibrationRecord(Schema):
    """The correction of a table's sums, where its profile job measured whole networks."""

    calibration: JsonObject | None


class OperatorLatency(Schema):
    """One row of a breakdown, in the order of execution."""

    part: str
    key: str
    milliseconds: float


class Estimate(Schema):
    """The predicted latency of an architecture on a table's device, whole, by part and, where asked, by operator."""

    milliseconds: float  # the sum of its operators
    num_executed: int  # operators
    calibrated_ms: float | None = None  # corrected, where the table has a calibration
    parts: dict[str, float]
    operators: list[OperatorLatency] | None = None


ArchitectureOrId = Annotated[
    Annotated[Sha256, Tag("id")] | Annotated[SentObject, Tag("document")],
    Discriminator(lambda sent: "id" if isinstance(sent, str) else "document"),
]


class EstimateRequest(Schema):
    """The architectures to estimate, each by id or as a document."""

    architectures: list[ArchitectureOrId] = Field(min_length=1, max_length=1000)
    breakdown: bool = False  # operator by operator as well


class EstimateResponse(Schema):
    items: list[Estimate]


class TokenSubmission(Schema):
    """A token to make; its project is that of the token that asks for it, unless an operator names another."""

    name: Name
    scope: Scope
    project: Project | None = None
    days: int | None = Field(default=None, ge=1, le=3650, description="after which it expires; never without")


class TokenRecord(Schema):
    """A token without its secret."""

    id: TokenId
    project: Project
    name: str
    scope: Scope
    created_at: datetime
    created_by: str | None  # as of a job; null also of the first token
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class TokenSecret(Schema):
    """A new token; its secret is never shown again."""

    record: TokenRecord
    secret: str


class TokenPage(Schema):
    items: list[TokenRecord]


class Health(Schema):
    """status is "ok" where every part answers; each part is "ok" or says what is wrong."""

    status: str
    version: str
    database: str
    store: str
    ray: str
    profiler: str
    ray_dashboard: str  # its address


class InvalidField(Schema):
    """One refused field: its place as a dotted path, and what to do."""

    field: str
    message: str


class Problem(Schema):
    """RFC 9457 application/problem+json."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[InvalidField] = Field(default_factory=list)
    request_id: str | None = None  # under which the service has logged the request
