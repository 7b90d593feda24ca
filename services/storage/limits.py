"""Limits of jobs: a deadline, and hours of work in all attempts together. A job that reaches one is paused."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from services.client.schemas import InvalidField
from services.storage.tables import AttemptRow, JobRow

_HOUR = 3600.0  # in seconds


def used_hours(session: Session, jobs: list[str]) -> dict[str, float]:
    """How long the attempts of each job have worked, times their devices, as far as their workers were heard of."""
    seconds = func.sum(AttemptRow.device_seconds)
    rows = session.execute(select(AttemptRow.job, seconds).where(AttemptRow.job.in_(jobs)).group_by(AttemptRow.job))
    return dict.fromkeys(jobs, 0.0) | {job: total / _HOUR for job, total in rows}


def has_reached_a_limit(now: datetime) -> ColumnElement[bool]:
    """Whether a job of a query has one."""
    used = select(func.coalesce(func.sum(AttemptRow.device_seconds), 0.0)).where(AttemptRow.job == JobRow.id)
    return or_(
        and_(JobRow.deadline.is_not(None), JobRow.deadline <= now),
        and_(JobRow.max_hours.is_not(None), JobRow.max_hours <= used.correlate(JobRow).scalar_subquery() / _HOUR),
    )


def reached_limits(job: JobRow, used: float, now: datetime) -> tuple[InvalidField, ...]:
    """The limits that keep a job from running that used so many hours, each with how to go on."""
    reached = []
    if job.deadline is not None and job.deadline <= now:
        fix = f"resume it with a later one, as `fasterseg resume {job.id} --deadline TIME` does"
        reached.append(InvalidField(field="deadline", message=f"{job.deadline:%Y-%m-%dT%H:%M:%SZ} has passed: {fix}"))
    if job.max_hours is not None and job.max_hours <= used:
        fix = f"resume it with more, as `fasterseg resume {job.id} --max-hours HOURS` does"
        message = f"{used:.2f} of {job.max_hours:g} were used: {fix}"
        reached.append(InvalidField(field="max_hours", message=message))
    return tuple(reached)


def described(limits: tuple[InvalidField, ...]) -> str:
    """Limits in one line."""
    return "; ".join(f"{limit.field}: {limit.message}" for limit in limits)
