"""Jobs: submission, legal transitions, claims. `move` alone writes the state column."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush

from sqlalchemy import ColumnElement, CursorResult, and_, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from services.client.schemas import FailureClass, JobKind, JobState, JobSubmission, JsonObject, Limits, Reason
from services.storage.database import database_now, insert_if_absent, new_id
from services.storage.errors import Conflict, InvalidRequest, NotFound, described
from services.storage.events import add_event
from services.storage.limits import (
    has_reached_a_limit,
    has_reached_its_own_limit,
    reached_limits,
    used_hours,
)
from services.storage.tables import JobEdgeRow, JobRow

LEGAL_MOVES = {
    JobState.QUEUED: (JobState.RUNNING, JobState.FAILED, JobState.CANCELLED),
    JobState.RUNNING: (JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
}

HOW_IT_ENDED = {
    JobState.SUCCEEDED: "has succeeded",
    JobState.FAILED: "has failed",
    JobState.CANCELLED: "was cancelled",
}


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A checked submission: `spec` is complete, `sources` names the parent that each input comes from."""

    submission: JobSubmission
    spec: JsonObject
    sources: dict[str, str]
    idempotency_key: str | None
    project: str
    user: str | None = None
    traceparent: str | None = None  # of the request's span


def request_digest(submission: JobSubmission) -> str:
    """The sha256 of a submission, in hex: what an idempotency key stands for, also for a service with newer fields."""
    given = submission.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def submitted_before(session: Session, project: str, submission: JobSubmission, idempotency_key: str) -> JobRow | None:
    """The job of the project that this key made, if any.

    Raises:
        InvalidRequest: it was made by another submission.
    """
    job = session.scalar(select(JobRow).where(JobRow.project == project, JobRow.idempotency_key == idempotency_key))
    if job is not None and job.request_digest != request_digest(submission):
        raise InvalidRequest.at("Idempotency-Key", "this key was used for another submission")
    return job


def insert_job(session: Session, new: NewJob) -> JobRow:
    """The row of a new job, with its edges and first event; the row of before where the key made one meanwhile."""
    now = database_now(session)
    submission = new.submission
    job_id = new_id()
    inserted = insert_if_absent(
        session,
        JobRow,
        id=job_id,
        project=new.project,
        kind=submission.kind,
        name=submission.name,
        state=JobState.QUEUED,
        priority=submission.priority,
        max_hours=submission.max_hours,
        deadline=submission.deadline,
        spec=new.spec,
        inputs=submission.inputs.model_dump(mode="json", exclude_none=True),
        sources=new.sources,
        epoch=0,
        events=0,
        idempotency_key=new.idempotency_key,
        request_digest=request_digest(submission),
        created_at=now,
        created_by=new.user,
        runnable_at=now,
    )
    if not inserted and new.idempotency_key is not None:
        earlier = submitted_before(session, new.project, submission, new.idempotency_key)
        assert earlier is not None
        return earlier
    session.add_all(
        JobEdgeRow(child=job_id, parent=parent, position=position) for position, parent in enumerate(submission.after)
    )
    job = locked_job(session, job_id)
    add_event(session, job, "queued", {} if new.traceparent is None else {"traceparent": new.traceparent}, now)
    return job


def find_job(session: Session, job_id: str) -> JobRow:
    """The row of a job; NotFound where there is none."""
    job = session.scalar(select(JobRow).where(JobRow.id == job_id))
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def locked_job(session: Session, job_id: str) -> JobRow:
    """The row of a job, held until the transaction ends; NotFound where there is none."""
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    job = session.scalar(query.execution_options(populate_existing=True))
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def parents_of(session: Session, job_id: str) -> list[JobRow]:
    """The jobs in a job's `after`, in its order."""
    edges = select(JobRow).join(JobEdgeRow, JobEdgeRow.parent == JobRow.id).where(JobEdgeRow.child == job_id)
    return list(session.scalars(edges.order_by(JobEdgeRow.position)))


def list_jobs(
    session: Session, *, state: JobState | None, kind: JobKind | None, before: int | None, limit: int
) -> list[JobRow]:
    """The newest jobs first, those with a number under `before`."""
    query = select(JobRow).order_by(JobRow.number.desc()).limit(limit)
    if state is not None:
        query = query.where(JobRow.state == state)
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if before is not None:
        query = query.where(JobRow.number < before)
    return list(session.scalars(query))


def move(session: Session, job: JobRow, to: JobState, event: str, now: datetime, reason: Reason | None = None) -> None:
    """Writes the state column and its event. The reason is why the job failed, or why it is queued again.

    Raises:
        Conflict: the job is in a state that cannot become this one, or has left the state that was read.
    """
    if to not in LEGAL_MOVES.get(job.state, ()):
        raise Conflict(f"job {job.id} is {job.state} and cannot become {to}")
    values: dict[str, object] = {"state": to}
    if to is JobState.RUNNING:
        values |= {"epoch": job.epoch + 1, "started_at": job.started_at or now}
    if to.is_final:
        values |= {"finished_at": now}
    data = {} if reason is None else reason.model_dump(mode="json")
    if to is JobState.FAILED:
        values |= {"reason": data}
    moved = session.execute(update(JobRow).where(JobRow.id == job.id, JobRow.state == job.state).values(**values))
    assert isinstance(moved, CursorResult)
    if moved.rowcount != 1:
        raise Conflict(f"job {job.id} has left the state {job.state}")
    session.refresh(job)
    add_event(session, job, event, data, now)


def claim_job(session: Session, per_project: int | None = None) -> JobRow | None:
    """The oldest runnable job of the highest priority, now running under a new epoch; none where nothing can run.

    Runnable: queued and not paused, within its limits, its back-off over, every parent succeeded. Of a project of which
    `per_project` run already, none is; dispatchers that claim at the same moment may exceed that by one each.
    """
    now = database_now(session)
    first = select(JobRow).where(_is_runnable(now)).order_by(JobRow.priority.desc(), JobRow.number).limit(1)
    if per_project is not None:
        running = select(JobRow.project).where(JobRow.state == JobState.RUNNING).group_by(JobRow.project)
        first = first.where(JobRow.project.not_in(running.having(func.count() >= per_project)))
    job = session.scalar(first.with_for_update(skip_locked=True))
    if job is not None:
        move(session, job, JobState.RUNNING, "started", now)
    return job


def release_children(session: Session, job: JobRow, now: datetime) -> None:
    """Notes when the jobs that wait for a job could run at the earliest: now that it has succeeded.

    They are locked in the order of their submission, as by all who lock several.
    """
    children = select(JobRow).join(JobEdgeRow, JobEdgeRow.child == JobRow.id).where(JobEdgeRow.parent == job.id)
    for child in session.scalars(children.order_by(JobRow.number).with_for_update(of=JobRow)):
        child.runnable_at = now


def longest_wait_seconds(session: Session) -> float:
    """For how long a job has been able to start that has not been; 0 where none is able to."""
    now = database_now(session)
    since = session.scalar(select(func.min(JobRow.runnable_at)).where(_is_runnable(now)))
    return 0.0 if since is None else (now - since).total_seconds()


def _is_runnable(now: datetime) -> ColumnElement[bool]:
    parent = aliased(JobRow)
    waits = exists().where(
        JobEdgeRow.child == JobRow.id, JobEdgeRow.parent == parent.id, parent.state != JobState.SUCCEEDED
    )
    is_ready = and_(JobRow.state == JobState.QUEUED, JobRow.paused_at.is_(None), JobRow.runnable_at <= now)
    return and_(is_ready, ~waits, ~has_reached_a_limit(now))


def fail_job(session: Session, job: JobRow, reason: Reason, now: datetime) -> None:
    """Ends a job as failed, and with it every job that waits for it."""
    move(session, job, JobState.FAILED, "failed", now, reason)
    _fail_descendants(session, job, now)


def cancel_job(session: Session, job: JobRow, now: datetime) -> None:
    """Ends a job as cancelled, and fails every job that waits for it."""
    move(session, job, JobState.CANCELLED, "cancelled", now)
    _fail_descendants(session, job, now)


def request_cancel(session: Session, job_id: str) -> JobRow:
    """Cancels a queued job at once and asks a running one to stop; asking again changes nothing.

    Raises:
        Conflict: the job has succeeded or failed.
    """
    job = locked_job(session, job_id)
    now = database_now(session)
    if job.state in (JobState.SUCCEEDED, JobState.FAILED):
        raise Conflict(f"job {job_id} {HOW_IT_ENDED[job.state]} already")
    if job.cancel_requested_at is None and job.state is not JobState.CANCELLED:
        job.cancel_requested_at = now
        add_event(session, job, "cancel_requested", {}, now)
    if job.state is JobState.QUEUED:
        cancel_job(session, job, now)
    return job


def request_pause(session: Session, job_id: str) -> JobRow:
    """Keeps a queued job from starting, and asks a running one to stop until it is resumed; again changes nothing.

    Raises:
        Conflict: the job is over.
    """
    job = _unfinished(session, job_id)
    if job.paused_at is None:
        _pause(session, job, {}, database_now(session))
    return job


def pause_where_limits_are_reached(session: Session) -> None:
    """Pauses every job that has reached a limit of its own, as `request_pause` does."""
    now = database_now(session)
    is_open = JobRow.state.in_((JobState.QUEUED, JobState.RUNNING))
    reached = select(JobRow).where(is_open, JobRow.paused_at.is_(None), has_reached_its_own_limit(now))
    for job in session.scalars(reached.with_for_update(skip_locked=True)).all():  # others: at the next look
        limits = reached_limits(job, used_hours(session, [job.id])[job.id], now)
        _pause(session, job, {limit.field: limit.message for limit in limits}, now)


def resume_job(session: Session, job_id: str, limits: Limits | None = None) -> JobRow:
    """Lets a paused job run, under the limits that are given; one that is not paused takes these and is left as it is.

    Where the project has used its hours, the job waits for more.

    Raises:
        Conflict: the job is over, or has reached a limit of its own all the same.
    """
    job = _unfinished(session, job_id)
    now = database_now(session)
    if limits is not None:
        _set_limits(session, job, limits, now)
    reached = reached_limits(job, used_hours(session, [job.id])[job.id], now)
    if reached:
        raise Conflict(described(reached), reached)
    if job.paused_at is not None:
        job.paused_at, job.runnable_at = None, now
        add_event(session, job, "resumed", {}, now)
    return job


def _set_limits(session: Session, job: JobRow, limits: Limits, now: datetime) -> None:
    given = limits.model_dump(mode="json", exclude_none=True)
    if given:
        job.max_hours = job.max_hours if limits.max_hours is None else limits.max_hours
        job.deadline = job.deadline if limits.deadline is None else limits.deadline
        add_event(session, job, "limits_set", given, now)


def _pause(session: Session, job: JobRow, why: JsonObject, now: datetime) -> None:
    job.paused_at = now
    add_event(session, job, "paused" if job.state is JobState.QUEUED else "pause_requested", why, now)


def _unfinished(session: Session, job_id: str) -> JobRow:
    job = locked_job(session, job_id)
    if job.state.is_final:
        raise Conflict(f"job {job_id} {HOW_IT_ENDED[job.state]}")
    return job


def _fail_descendants(session: Session, job: JobRow, now: datetime) -> None:
    """Fails every job that waits for one that has just ended, and every job that waits for one of those.

    They are locked in the order of their submission, in which a job comes after all that it waits for: no two who do so
    wait for each other. Who waits for a job is read once it is locked, when no submission adds to them any more.
    """
    waiting = _children(session, job)
    while waiting:
        _, child_id, message = heappop(waiting)
        child = locked_job(session, child_id)
        if child.state is JobState.QUEUED:  # not failed through another job that it waits for, too
            reason = Reason(failure=FailureClass.PARENT_FAILED, message=message)
            move(session, child, JobState.FAILED, "failed", now, reason)
            for grandchild in _children(session, child):
                heappush(waiting, grandchild)


def _children(session: Session, job: JobRow) -> list[tuple[int, str, str]]:
    """Number and id of every job that waits for one that has ended, in their order, with what to tell them."""
    children = select(JobRow.number, JobRow.id).join(JobEdgeRow, JobEdgeRow.child == JobRow.id)
    rows = session.execute(children.where(JobEdgeRow.parent == job.id).order_by(JobRow.number))
    message = f"job {job.id}, which this one waits for, {HOW_IT_ENDED[job.state]}"
    return [(number, child, message) for number, child in rows]
