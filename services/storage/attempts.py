"""Attempts, one Ray job each: opened by the dispatcher with a lease, ended once, retried within a budget.

A lease is lost when the reconciler ends the attempt, not when it expires: after an outage of ours a worker that still
lives renews it, and no other attempt can have begun meanwhile.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from services.client.schemas import FailureClass, JobKind, JobState, Reason
from services.storage.database import database_now
from services.storage.errors import NotFound
from services.storage.events import add_event, submitting_span
from services.storage.jobs import cancel_job, fail_job, find_job, locked_job, move
from services.storage.limits import has_no_hours_left_in_its_project, used_up_projects
from services.storage.tables import AttemptOutcome, AttemptRow, CheckpointRow, JobRow

LEASE_SECONDS = 60
RETRIES = {
    FailureClass.USER_ERROR: 0,
    FailureClass.OUT_OF_MEMORY: 1,
    FailureClass.INFRASTRUCTURE: 5,
    FailureClass.PARENT_FAILED: 0,
}
FIRST_BACKOFF_SECONDS = 5
LONGEST_BACKOFF_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """What Ray is given to start an attempt; the ticket is stored as its hash only."""

    submission_id: str
    ticket: str
    job: str
    kind: JobKind
    name: str | None
    project: str
    user: str | None  # who submitted the job
    traceparent: str | None  # of the span that its worker's belong to
    waited_seconds: float  # from when the job could run to the attempt


@dataclass(frozen=True, kw_only=True)
class LiveAttempt:
    """An attempt whose worker may write, as the database's clock sees it."""

    submission_id: str
    redeemed: bool  # its worker has reported for duty
    age_seconds: float  # since it was last handed to Ray
    lease_seconds: float  # what is left of its lease; negative where it is over
    cancel_seconds: float | None  # since its job's cancellation was requested


@dataclass(frozen=True, kw_only=True)
class EndedAttempt:
    """An attempt whose worker should be gone."""

    submission_id: str
    outcome: AttemptOutcome
    age_seconds: float  # since it ended


def open_attempt(session: Session, job: JobRow, instance: str) -> Dispatch:
    """Opens the attempt of a job that was just claimed."""
    now = database_now(session)
    ticket = secrets.token_urlsafe(32)
    attempt = AttemptRow(
        submission_id=f"{instance}-{job.id}-{job.epoch}",
        job=job.id,
        epoch=job.epoch,
        ticket_hash=secret_digest(ticket),
        lease_until=now + timedelta(seconds=LEASE_SECONDS),
        created_at=now,
        submitted_at=now,
    )
    session.add(attempt)
    session.flush()
    return _dispatch(session, attempt, job, ticket)


def renew_ticket(session: Session, submission_id: str, after: timedelta) -> Dispatch | None:
    """A new ticket for an attempt that never reached Ray, so long after it was last handed to it.

    None where its worker has redeemed the ticket after all, and where another replica has renewed it meanwhile. The one
    before stays good: a submission can reach Ray late, and Ray keeps the job that it is given first.
    """
    attempt, job = lock_attempt(session, submission_id)
    now = database_now(session)
    if attempt.finished_at is not None or attempt.token_hash is not None or now - attempt.submitted_at < after:
        return None
    ticket = secrets.token_urlsafe(32)
    attempt.earlier_ticket_hash, attempt.ticket_hash = attempt.ticket_hash, secret_digest(ticket)
    attempt.submitted_at = now
    return _dispatch(session, attempt, job, ticket)


def extend_lease(session: Session, submission_id: str) -> None:
    """Gives the worker of a live attempt a whole lease from now: Ray has not started it yet."""
    attempt, _ = lock_attempt(session, submission_id)
    if attempt.finished_at is None:
        renew_lease(session, attempt)


def stop_where_projects_have_no_hours_left(session: Session) -> None:
    """Asks the workers of their jobs to stop: these are queued then, and start again once there are more hours."""
    now = database_now(session)
    may_go_on = and_(AttemptRow.finished_at.is_(None), AttemptRow.stop_requested_at.is_(None))
    works = and_(JobRow.state == JobState.RUNNING, JobRow.paused_at.is_(None), JobRow.cancel_requested_at.is_(None))
    is_concerned = and_(works, exists().where(AttemptRow.job == JobRow.id, may_go_on))
    concerned = select(JobRow).where(is_concerned, has_no_hours_left_in_its_project())
    jobs = session.scalars(concerned.with_for_update(skip_locked=True)).all()  # others: at the next look
    limits = used_up_projects(session, {job.project for job in jobs})
    for job in jobs:
        attempt = session.scalar(select(AttemptRow).where(AttemptRow.job == job.id, may_go_on))  # now that it is held
        if attempt is not None and job.project in limits:
            attempt.stop_requested_at = now
            limit = limits[job.project]
            add_event(session, job, "pause_requested", {limit.field: limit.message}, now)


def lose_attempt(session: Session, submission_id: str, message: str) -> None:
    """Ends an attempt without its worker, unless it has ended: the job is cancelled where asked, else tried again."""
    attempt, job = lock_attempt(session, submission_id)
    if attempt.finished_at is None:
        reason = Reason(failure=FailureClass.INFRASTRUCTURE, message=message[:4000])
        end_unsuccessfully(session, attempt, job, AttemptOutcome.LOST, reason)


def reap_attempt(session: Session, submission_id: str, message: str) -> None:
    """Ends an attempt as `lose_attempt` does, unless its worker has renewed the lease meanwhile."""
    attempt, _ = lock_attempt(session, submission_id)
    if attempt.lease_until < database_now(session):
        lose_attempt(session, submission_id, message)


def live_attempts(session: Session) -> list[LiveAttempt]:
    """All attempts that have not ended, oldest first."""
    now = database_now(session)
    query = select(AttemptRow, JobRow.cancel_requested_at).join(JobRow, JobRow.id == AttemptRow.job)
    rows = session.execute(query.where(AttemptRow.finished_at.is_(None)).order_by(AttemptRow.created_at))
    return [
        LiveAttempt(
            submission_id=attempt.submission_id,
            redeemed=attempt.token_hash is not None,
            age_seconds=(now - attempt.submitted_at).total_seconds(),
            lease_seconds=(attempt.lease_until - now).total_seconds(),
            cancel_seconds=None if cancel is None else (now - cancel).total_seconds(),
        )
        for attempt, cancel in rows
    ]


def longest_silence_seconds(session: Session) -> float:
    """For how long the lease of a live attempt has not been renewed; 0 where none is live."""
    first = session.scalar(select(func.min(AttemptRow.lease_until)).where(AttemptRow.finished_at.is_(None)))
    return 0.0 if first is None else (database_now(session) - first).total_seconds() + LEASE_SECONDS


def ended_attempts(session: Session, submission_ids: list[str]) -> list[EndedAttempt]:
    """Those of the attempts that have ended."""
    now = database_now(session)
    query = select(AttemptRow).where(AttemptRow.submission_id.in_(submission_ids))
    return [
        EndedAttempt(
            submission_id=row.submission_id,
            outcome=row.outcome,
            age_seconds=(now - row.finished_at).total_seconds(),
        )
        for row in session.scalars(query)
        if row.finished_at is not None and row.outcome is not None
    ]


def find_attempt(session: Session, job: str, epoch: int | None) -> AttemptRow | None:
    """An attempt at a job, or the latest where no epoch is given, if there is any; NotFound where that is missing."""
    attempts = select(AttemptRow).where(AttemptRow.job == find_job(session, job).id)
    if epoch is None:
        return session.scalar(attempts.order_by(AttemptRow.epoch.desc()).limit(1))
    attempt = session.scalar(attempts.where(AttemptRow.epoch == epoch))
    if attempt is None:
        raise NotFound(f"job {job} has had no attempt {epoch}")
    return attempt


def lock_attempt(session: Session, submission_id: str) -> tuple[AttemptRow, JobRow]:
    """An attempt and its job, held until the transaction ends; NotFound where there is none.

    The job is locked first, as everywhere: two transactions with different orders would wait for each other.
    """
    attempt = session.get(AttemptRow, submission_id)
    if attempt is None:
        raise NotFound(f"there is no attempt {submission_id}")
    job = locked_job(session, attempt.job)
    session.refresh(attempt, with_for_update=True)
    return attempt, job


def renew_lease(session: Session, attempt: AttemptRow) -> None:
    """A whole lease from now."""
    attempt.lease_until = database_now(session) + timedelta(seconds=LEASE_SECONDS)


def count_work(session: Session, attempt: AttemptRow) -> None:
    """Counts how long an attempt has held its devices until now, when its worker is heard of."""
    if attempt.placed_at is not None and attempt.devices is not None:
        worked = (database_now(session) - attempt.placed_at).total_seconds() * attempt.devices
        attempt.device_seconds = max(attempt.device_seconds, worked)


def end_attempt(session: Session, attempt: AttemptRow, outcome: AttemptOutcome) -> None:
    """Ends a live attempt: nothing is accepted from its worker any more."""
    attempt.outcome, attempt.finished_at = outcome, database_now(session)


def end_unsuccessfully(
    session: Session, attempt: AttemptRow, job: JobRow, outcome: AttemptOutcome, reason: Reason
) -> None:
    """Ends a live attempt; its job is cancelled where that was requested, else requeued while the budget lasts."""
    now = database_now(session)
    attempt.failure = reason.model_dump(mode="json")
    end_attempt(session, attempt, outcome)
    failures = _count_failures(session, job.id, reason.failure)
    if job.cancel_requested_at is not None:
        cancel_job(session, job, now)
    elif failures > RETRIES[reason.failure]:
        fail_job(session, job, reason, now)
    else:
        backoff = min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS)
        job.runnable_at = now + timedelta(seconds=backoff)
        move(session, job, JobState.QUEUED, "requeued", now, reason)


def secret_digest(secret: str) -> str:
    """The form in which tickets and tokens are stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _count_failures(session: Session, job: str, failure: FailureClass) -> int:
    """The failures of a class since the job last got further: from the attempt on that made its newest checkpoint."""
    maker = aliased(AttemptRow)
    made = select(func.max(maker.epoch)).join(CheckpointRow, CheckpointRow.attempt == maker.submission_id)
    last = func.coalesce(made.where(CheckpointRow.job == job).scalar_subquery(), 0)
    same = AttemptRow.failure["failure"].as_string() == failure.value
    return session.scalar(select(func.count()).where(AttemptRow.job == job, same, AttemptRow.epoch >= last)) or 0


def _dispatch(session: Session, attempt: AttemptRow, job: JobRow, ticket: str) -> Dispatch:
    return Dispatch(
        submission_id=attempt.submission_id,
        ticket=ticket,
        job=job.id,
        kind=job.kind,
        name=job.name,
        project=job.project,
        user=job.created_by,
        traceparent=submitting_span(session, job.id),
        waited_seconds=(attempt.created_at - job.runnable_at).total_seconds(),
    )
