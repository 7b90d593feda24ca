"""What a worker may write: everything through its attempt's token, and nothing once the attempt is over."""

import hmac
import json
import secrets
from collections.abc import Iterable

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from services.client.attempt_schemas import (
    Assignment,
    AttemptStatus,
    AttemptSuccess,
    CheckpointRef,
    Heartbeat,
    WorkerEvent,
)
from services.client.schemas import FailureClass, JobKind, JobState, JsonObject, Progress, Reason
from services.storage.artifacts import add_artifacts, require_blob
from services.storage.attempts import (
    count_work,
    end_attempt,
    end_unsuccessfully,
    lock_attempt,
    renew_lease,
    secret_digest,
)
from services.storage.database import database_now
from services.storage.documents import add_calibration, add_derived_architecture, add_latency_table
from services.storage.errors import InvalidRequest, LeaseLost, NotAuthorized
from services.storage.events import add_event, add_worker_events
from services.storage.inputs import NETWORK_ARTIFACT, resolve_inputs
from services.storage.jobs import cancel_job, move, release_children
from services.storage.tables import AttemptOutcome, AttemptRow, BlobRow, CheckpointRow, JobRow

HEARTBEAT_SECONDS = 10
KEPT_CHECKPOINTS = 3  # of a job: where the newest cannot be read, the one before serves


def redeem_ticket(session: Session, submission_id: str, ticket: str) -> Assignment:
    """The assignment of an attempt, with the token for its further requests; one ticket works, once.

    Raises:
        NotAuthorized: no attempt has this ticket.
        LeaseLost: the ticket was redeemed, or the attempt is over.
    """
    attempt, job = lock_attempt(session, submission_id)
    digest = secret_digest(ticket)
    if not any(hmac.compare_digest(good, digest) for good in (attempt.ticket_hash, attempt.earlier_ticket_hash or "")):
        raise NotAuthorized("this ticket does not belong to this attempt")
    if attempt.finished_at is not None or attempt.token_hash is not None:
        raise LeaseLost("this ticket was redeemed, or its attempt is over")
    token = secrets.token_urlsafe(32)
    attempt.token_hash = secret_digest(token)
    renew_lease(session, attempt)
    return Assignment(
        token=token,
        job=job.id,
        kind=job.kind,
        epoch=attempt.epoch,
        spec=job.spec,
        inputs=resolve_inputs(session, job),
        checkpoints=latest_checkpoints(session, job.id),
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )


def heartbeat(session: Session, submission_id: str, token: str, beat: Heartbeat) -> AttemptStatus:
    """Extends the lease, notes the progress, and from when on the worker holds devices."""
    attempt, job = _fenced(session, submission_id, token)
    if beat.progress is not None:
        job.progress = _plain(beat.progress)
    if beat.devices is not None and attempt.placed_at is None:
        attempt.placed_at, attempt.devices = database_now(session), beat.devices
    return _renewed(session, attempt, job)


def report_events(session: Session, submission_id: str, token: str, events: list[WorkerEvent]) -> AttemptStatus:
    """Appends a worker's events, each once."""
    attempt, job = _fenced(session, submission_id, token)
    add_worker_events(session, job, attempt, events, database_now(session))
    return _renewed(session, attempt, job)


def add_checkpoint(session: Session, submission_id: str, token: str, checkpoint: CheckpointRef) -> AttemptStatus:
    """Makes an uploaded blob the job's newest checkpoint and forgets those older than the last three.

    Delivered again it changes nothing.

    Raises:
        InvalidRequest: the blob was not uploaded, or has another size.
    """
    attempt, job = _fenced(session, submission_id, token)
    require_blob(session, checkpoint.sha256, checkpoint.size, "sha256")
    known = select(CheckpointRow.id).where(
        CheckpointRow.attempt == submission_id, CheckpointRow.sha256 == checkpoint.sha256
    )
    if session.scalar(known) is None:
        now = database_now(session)
        progress = _plain(checkpoint.progress)
        session.add(
            CheckpointRow(
                job=job.id, attempt=submission_id, sha256=checkpoint.sha256, progress=progress, created_at=now
            )
        )
        session.flush()
        _keep_checkpoints(session, job.id, KEPT_CHECKPOINTS)
        job.progress = progress
        add_event(session, job, "checkpoint", {"sha256": checkpoint.sha256, "progress": progress}, now)
    return _renewed(session, attempt, job)


def succeed(session: Session, submission_id: str, token: str, success: AttemptSuccess) -> None:
    """Writes everything that the job made and ends it, so that its children can run; its last checkpoint is kept.

    Raises:
        InvalidRequest: a blob was not uploaded, a document is malformed, or the kind's product is missing.
    """
    attempt, job = _fenced(session, submission_id, token)
    _require_product(job.kind, success)
    now = database_now(session)
    add_artifacts(session, job.id, success.artifacts)
    for role, document in success.architectures.items():
        add_derived_architecture(session, job, role, document, now)
    if success.latency_table is not None:
        job.latency_table = add_latency_table(session, job.project, success.latency_table, now)
        if success.calibration is not None:
            add_calibration(session, job.project, job.latency_table, success.calibration)
    job.result = success.result
    _keep_checkpoints(session, job.id, 1)
    end_attempt(session, attempt, AttemptOutcome.SUCCEEDED)
    move(session, job, JobState.SUCCEEDED, "succeeded", now)
    release_children(session, job, now)


def fail(session: Session, submission_id: str, token: str, reason: Reason) -> None:
    """Ends the attempt; the job runs again while the budget of this class of failure lasts."""
    attempt, job = _fenced(session, submission_id, token)
    end_unsuccessfully(session, attempt, job, AttemptOutcome.FAILED, reason)


def acknowledge_stop(session: Session, submission_id: str, token: str) -> None:
    """Ends the attempt as was asked: its job is cancelled, or queued, to go on once it is resumed or has hours again.

    A job that was resumed in between, or never told to stop, is tried again as after a failure.
    """
    attempt, job = _fenced(session, submission_id, token)
    now = database_now(session)
    if not _should_stop(attempt, job):
        reason = Reason(failure=FailureClass.INFRASTRUCTURE, message="the worker stopped, which nobody asks for now")
        end_unsuccessfully(session, attempt, job, AttemptOutcome.CANCELLED, reason)
        return
    end_attempt(session, attempt, AttemptOutcome.CANCELLED)
    if job.cancel_requested_at is not None:
        cancel_job(session, job, now)
    else:
        move(session, job, JobState.QUEUED, "paused", now)


def authorize(session: Session, token: str) -> str:
    """The project of the live attempt that a token belongs to; NotAuthorized or LeaseLost where there is none."""
    attempt = session.scalar(select(AttemptRow).where(AttemptRow.token_hash == secret_digest(token)))
    if attempt is None:
        raise NotAuthorized("this token belongs to nobody")
    if attempt.finished_at is not None:
        raise LeaseLost(f"attempt {attempt.submission_id} is over")
    return session.scalars(select(JobRow.project).where(JobRow.id == attempt.job)).one()


def authorized(session: Session, tokens: Iterable[str]) -> set[str]:
    """Those of the tokens that belong to live attempts."""
    by_digest = {secret_digest(token): token for token in tokens}
    live = select(AttemptRow.token_hash).where(AttemptRow.token_hash.in_(by_digest), AttemptRow.finished_at.is_(None))
    return {by_digest[digest] for digest in session.scalars(live) if digest is not None}


def latest_checkpoints(session: Session, job: str) -> list[CheckpointRef]:
    """The checkpoints of a job that are kept, of whichever attempts, newest first."""
    rows = session.execute(_newest_checkpoints(job).add_columns(BlobRow.size).join(BlobRow))
    return [
        CheckpointRef(sha256=row.sha256, size=size, progress=Progress.model_validate(row.progress))
        for row, size in rows
    ]


def _keep_checkpoints(session: Session, job: str, count: int) -> None:
    """Forgets all but the newest checkpoints of a job."""
    kept = session.scalars(_newest_checkpoints(job).with_only_columns(CheckpointRow.id).limit(count)).all()
    session.execute(delete(CheckpointRow).where(CheckpointRow.job == job, CheckpointRow.id.not_in(kept)))


def _newest_checkpoints(job: str) -> Select[CheckpointRow]:
    return select(CheckpointRow).where(CheckpointRow.job == job).order_by(CheckpointRow.id.desc())


def _fenced(session: Session, submission_id: str, token: str) -> tuple[AttemptRow, JobRow]:
    attempt, job = lock_attempt(session, submission_id)
    if attempt.token_hash is None or not hmac.compare_digest(attempt.token_hash, secret_digest(token)):
        raise NotAuthorized("this token does not belong to this attempt")
    if attempt.finished_at is not None:
        raise LeaseLost(f"attempt {submission_id} is over")
    count_work(session, attempt)
    return attempt, job


def _renewed(session: Session, attempt: AttemptRow, job: JobRow) -> AttemptStatus:
    renew_lease(session, attempt)
    return AttemptStatus(stop=_should_stop(attempt, job))


def _should_stop(attempt: AttemptRow, job: JobRow) -> bool:
    requests = (job.cancel_requested_at, job.paused_at, attempt.stop_requested_at)
    return any(request is not None for request in requests)


def _require_product(kind: JobKind, success: AttemptSuccess) -> None:
    names = {artifact.name for artifact in success.artifacts}
    if kind is JobKind.PROFILE and success.latency_table is None:
        raise InvalidRequest.at("latency_table", "a profile job makes one")
    if kind is JobKind.SEARCH and set(success.architectures) != {"student", "teacher"}:
        raise InvalidRequest.at("architectures", "a search job makes those of student and teacher")
    if kind is JobKind.RETRAIN and NETWORK_ARTIFACT not in names:
        raise InvalidRequest.at("artifacts", f"a retrain job makes {NETWORK_ARTIFACT}")


def _plain(progress: Progress) -> JsonObject:
    plain: JsonObject = json.loads(progress.model_dump_json())  # not a number becomes null, as in JSON
    return plain
