"""Limits of jobs: a deadline, hours of work in all attempts together, and the hours of all jobs of the project.

A job that reaches one of its own is paused until it is resumed. Where its project's are used it waits until there are
more, and goes on by itself.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from services.client.schemas import InvalidField, shown_hours
from services.storage.tables import AttemptRow, JobRow, ProjectRow

_HOUR = 3600.0  # in seconds


def used_hours(session: Session, jobs: list[str]) -> dict[str, float]:
    """How long the attempts of each job have worked, times their devices, as far as their workers were heard of."""
    seconds = func.sum(AttemptRow.device_seconds)
    rows = session.execute(select(AttemptRow.job, seconds).where(AttemptRow.job.in_(jobs)).group_by(AttemptRow.job))
    return dict.fromkeys(jobs, 0.0) | {job: total / _HOUR for job, total in rows}


def used_hours_of_project(session: Session, project: str) -> float:
    """How long the attempts of all jobs of a project have worked, as `used_hours` counts."""
    seconds = select(func.sum(AttemptRow.device_seconds)).join(JobRow, JobRow.id == AttemptRow.job)
    return (session.scalar(seconds.where(JobRow.project == project)) or 0.0) / _HOUR


def used_hours_by_project(session: Session) -> dict[str, float]:
    """As `used_hours_of_project`, for each project that has had a job."""
    seconds = func.coalesce(func.sum(AttemptRow.device_seconds), 0.0)
    query = select(JobRow.project, seconds).outerjoin(AttemptRow, AttemptRow.job == JobRow.id).group_by(JobRow.project)
    return {project: total / _HOUR for project, total in session.execute(query)}


def has_reached_a_limit(now: datetime) -> ColumnElement[bool]:
    """Whether a job of a query has reached one, its own or its project's."""
    return or_(has_reached_its_own_limit(now), has_no_hours_left_in_its_project())


def has_reached_its_own_limit(now: datetime) -> ColumnElement[bool]:
    """Whether a job of a query has."""
    used = select(func.coalesce(func.sum(AttemptRow.device_seconds), 0.0)).where(AttemptRow.job == JobRow.id)
    return or_(
        and_(JobRow.deadline.is_not(None), JobRow.deadline <= now),
        and_(JobRow.max_hours.is_not(None), JobRow.max_hours <= used.correlate(JobRow).scalar_subquery() / _HOUR),
    )


def has_no_hours_left_in_its_project() -> ColumnElement[bool]:
    """Whether a job of a query is of a project that has used its hours."""
    return JobRow.project.in_(select(ProjectRow.name).where(_is_used_up()))


def reached_limits(job: JobRow, used: float, now: datetime) -> tuple[InvalidField, ...]:
    """The limits of its own that keep a job from running that used so many hours, each with how to go on."""
    reached = []
    if job.deadline is not None and job.deadline <= now:
        fix = f"resume it with a later one, as `fasterseg resume {job.id} --deadline TIME` does"
        reached.append(InvalidField(field="deadline", message=f"{job.deadline:%Y-%m-%dT%H:%M:%SZ} has passed: {fix}"))
    if job.max_hours is not None and job.max_hours <= used:
        fix = f"resume it with more, as `fasterseg resume {job.id} --max-hours HOURS` does"
        message = f"{shown_hours(used)} of {shown_hours(job.max_hours)} were used: {fix}"
        reached.append(InvalidField(field="max_hours", message=message))
    return tuple(reached)


def used_up_projects(session: Session, projects: Collection[str]) -> dict[str, InvalidField]:
    """Those of the projects that have used their hours: the limit that keeps their jobs from running."""
    reached = {}
    for row in session.scalars(select(ProjectRow).where(ProjectRow.name.in_(projects))).all():
        if row.max_hours is not None and (used := used_hours_of_project(session, row.name)) >= row.max_hours:
            fix = f"an operator gives it more, as `fasterseg project limit {row.name} --max-hours HOURS` does"
            message = f"{shown_hours(used)} of {shown_hours(row.max_hours)} of project {row.name} were used: {fix}"
            reached[row.name] = InvalidField(field="project.max_hours", message=message)
    return reached


def _is_used_up() -> ColumnElement[bool]:
    """Whether a project of a query has used its hours."""
    used = select(func.coalesce(func.sum(AttemptRow.device_seconds), 0.0)).join(JobRow, JobRow.id == AttemptRow.job)
    of_all_jobs = used.where(JobRow.project == ProjectRow.name).correlate(ProjectRow).scalar_subquery()
    return and_(ProjectRow.max_hours.is_not(None), ProjectRow.max_hours <= of_all_jobs / _HOUR)
