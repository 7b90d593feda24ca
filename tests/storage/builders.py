"""Rows and documents with defaults for tests of the storage and the control plane."""

import hashlib
import io
from dataclasses import dataclass
from datetime import timedelta

from pydantic import TypeAdapter
from sqlalchemy import update
from sqlalchemy.orm import Session

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.config import NUM_CLASSES, DatasetName
from fasterseg_core.latency_table import Fingerprint, LatencyRow, LatencyTable
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from fasterseg_core.search_space import Operator, Resolution, SearchSpace
from services.client.attempt_schemas import (
    Assignment,
    AttemptStatus,
    AttemptSuccess,
    CheckpointRef,
    Heartbeat,
    PhaseUsage,
    Usage,
)
from services.client.schemas import Artifact, Job, JobKind, JobSubmission, JsonObject, Progress
from services.storage.artifacts import keep_blob, record_blob
from services.storage.attempts import open_attempt
from services.storage.blob_store import BlobStore
from services.storage.database import Database, database_now
from services.storage.events import list_events
from services.storage.jobs import NewJob, claim_job, find_job, insert_job
from services.storage.tables import FIRST_PROJECT, AttemptRow, JobRow
from services.storage.views import show_job
from services.storage.worker_writes import add_checkpoint, heartbeat, redeem_ticket, succeed

SPACE = {"num_layers": 3, "expansion_ratios": [4, 8], "student_ratio": 4}
RESOLUTION = {"height": 64, "width": 128}
BLOB = b"a trained network"
STATE = b"state"
_DOCUMENT = TypeAdapter(JsonObject)


@dataclass(frozen=True)
class Worker:
    """A redeemed attempt."""

    submission_id: str
    token: str
    assignment: Assignment


def a_job(
    database: Database,
    kind: JobKind = JobKind.PROFILE,
    *,
    after: list[str] | None = None,
    priority: int = 0,
    max_hours: float | None = None,
    project: str = FIRST_PROJECT,
    user: str | None = None,
    **values: object,
) -> str:
    """The id of a queued job."""
    submission = JobSubmission(kind=kind, after=after or [], priority=priority, max_hours=max_hours)
    spec = _DOCUMENT.validate_python(values.pop("spec", {}))
    sources = values.pop("sources", {})
    assert isinstance(sources, dict)
    new = NewJob(submission=submission, spec=spec, sources=sources, idempotency_key=None, project=project, user=user)
    with database.writing.begin() as session:
        return insert_job(session, new).id


def a_started_worker(database: Database, instance: str = "test") -> Worker:
    """The worker of the oldest runnable job, its ticket redeemed."""
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None, "a job is runnable"
        dispatch = open_attempt(session, job, instance)
        assignment = redeem_ticket(session, dispatch.submission_id, dispatch.ticket)
    return Worker(dispatch.submission_id, assignment.token, assignment)


def a_trained_job(database: Database, store: BlobStore, state: bytes = STATE) -> str:
    """The id of a job that has succeeded with a network, BLOB, after a checkpoint; the store has both."""
    job = a_job(database, JobKind.RETRAIN)
    worker = a_started_worker(database)
    for body in (BLOB, state):
        keep_blob(database, store, hashlib.sha256(body).hexdigest(), io.BytesIO(body))
    with database.writing.begin() as session:
        add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(state))
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.RETRAIN))
    return job


def shown(session: Session, job: str) -> Job:
    """A job as users see it."""
    return show_job(session, find_job(session, job))


def events(session: Session, job: str) -> list[str]:
    """A job's history, by the kinds of its events."""
    return [event.kind for event in list_events(session, job, 0)]


def end_backoff(session: Session) -> None:
    """Makes requeued jobs runnable now."""
    session.execute(update(JobRow).values(runnable_at=database_now(session)))


def end_lease(session: Session, submission_id: str) -> None:
    """Lets an attempt's lease have ended a second ago."""
    ended = database_now(session) - timedelta(seconds=1)
    session.execute(update(AttemptRow).where(AttemptRow.submission_id == submission_id).values(lease_until=ended))


def pass_deadline(session: Session, job: str) -> None:
    """Lets a job have a deadline that was a second ago."""
    ago = database_now(session) - timedelta(seconds=1)
    session.execute(update(JobRow).where(JobRow.id == job).values(deadline=ago))


def work_for(session: Session, worker: Worker, hours: float, devices: int = 1) -> AttemptStatus:
    """Lets a worker have held its devices for so much longer, and be heard of."""
    heartbeat(session, worker.submission_id, worker.token, Heartbeat(devices=devices))
    attempt = session.get_one(AttemptRow, worker.submission_id)
    assert attempt.placed_at is not None, "the heartbeat placed it"
    attempt.placed_at -= timedelta(hours=hours)
    return heartbeat(session, worker.submission_id, worker.token, Heartbeat(devices=devices))


def a_blob(session: Session, body: bytes = BLOB) -> str:
    """The digest of a recorded blob."""
    sha256 = hashlib.sha256(body).hexdigest()
    record_blob(session, sha256, len(body))
    return sha256


def an_artifact(name: str = "network.safetensors", body: bytes = BLOB) -> Artifact:
    return Artifact(
        name=name, sha256=hashlib.sha256(body).hexdigest(), size=len(body), media_type="application/octet-stream"
    )


def a_checkpoint(body: bytes, epoch: int = 1) -> CheckpointRef:
    return CheckpointRef(sha256=hashlib.sha256(body).hexdigest(), size=len(body), progress=a_progress(epoch=epoch))


def a_progress(epoch: int = 1) -> Progress:
    return Progress(phase="search", epoch=epoch, epochs=10, step=1, steps=4, fraction=epoch / 10)


def a_usage(seconds: float = 60.0, **phases: PhaseUsage) -> Usage:
    return Usage(device="a CPU", seconds=seconds, phases=phases, peak_memory_bytes=2_000_000_000)


def a_phase(steps: int, step_seconds: float, evaluations: int = 0, evaluation_seconds: float = 0.0) -> PhaseUsage:
    return PhaseUsage(
        steps=steps, step_seconds=step_seconds, evaluations=evaluations, evaluation_seconds=evaluation_seconds
    )


def a_success(kind: JobKind) -> AttemptSuccess:
    """The least that a job of a kind makes."""
    match kind:
        case JobKind.PROFILE:
            return AttemptSuccess(result={}, latency_table=a_latency_table_document())
        case JobKind.SEARCH:
            student, teacher = an_architecture_document(4), an_architecture_document(8)
            return AttemptSuccess(result={}, architectures={"student": student, "teacher": teacher})
        case JobKind.RETRAIN:
            return AttemptSuccess(result={}, artifacts=[an_artifact()])
        case JobKind.EVALUATE | JobKind.EXPORT:
            return AttemptSuccess(result={"miou": 0.5})


def an_architecture(ratio: int = 4) -> Architecture:
    rates = (8, 16, 32)
    cells = tuple(Cell(operator=Operator.CONV, downsample_rate=rate, expansion_ratio=ratio) for rate in rates)
    return Architecture(stem_ratio=ratio, branches=(Branch(cells),))


def an_architecture_document(ratio: int = 4) -> JsonObject:
    return _DOCUMENT.validate_python(an_architecture(ratio).to_document())


def a_latency_table(
    *, dataset: DatasetName = DatasetName.CAMVID, without: tuple[OperatorSpec, ...] = (), milliseconds: float = 1.0
) -> LatencyTable:
    """A complete table of SPACE at RESOLUTION, less some entries."""
    resolution = Resolution(**RESOLUTION)
    space = TypeAdapter(SearchSpace).validate_python(SPACE)
    row = LatencyRow(milliseconds=milliseconds, lower_quartile=1.0, upper_quartile=1.0, samples=3)
    specs = space_specs(space, resolution, NUM_CLASSES[dataset])
    return LatencyTable(
        Fingerprint(
            engine="onnxruntime",
            engine_version="1",
            device="a CPU",
            driver="",
            threads=1,
            precision="fp32",
            protocol="made up",
            resolution=resolution,
            num_classes=NUM_CLASSES[dataset],
        ),
        {spec: row for spec in specs if spec not in without},
    )


def a_latency_table_document() -> JsonObject:
    return _DOCUMENT.validate_python(a_latency_table().to_document())


def a_body(data: bytes = BLOB) -> io.BytesIO:
    return io.BytesIO(data)
