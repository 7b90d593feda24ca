"""Rows of jobs as the REST contract shows them."""

from collections import defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.client import schemas
from services.client.schemas import Artifact, InvalidField, JobKind, JobState
from services.storage.database import database_now
from services.storage.errors import described
from services.storage.inputs import known_inputs
from services.storage.jobs import list_jobs
from services.storage.limits import reached_limits, used_hours, used_up_projects
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, DerivedArchitectureRow, JobEdgeRow, JobRow


def show_job(session: Session, job: JobRow) -> schemas.Job:
    """One job."""
    return show_jobs(session, [job])[0]


def show_jobs(session: Session, jobs: list[JobRow]) -> list[schemas.Job]:
    """Jobs in the same order."""
    ids = [job.id for job in jobs]
    after: dict[str, list[str]] = defaultdict(list)
    for edge in session.scalars(select(JobEdgeRow).where(JobEdgeRow.child.in_(ids)).order_by(JobEdgeRow.position)):
        after[edge.child].append(edge.parent)
    architectures: dict[str, dict[str, str]] = defaultdict(dict)
    for derived in session.scalars(select(DerivedArchitectureRow).where(DerivedArchitectureRow.job.in_(ids))):
        architectures[derived.job][derived.role] = derived.architecture
    attempts = select(AttemptRow.job, AttemptRow.submission_id).where(AttemptRow.job.in_(ids))
    latest = dict(session.execute(attempts.order_by(AttemptRow.epoch)).all())
    artifacts = _artifacts(session, ids)
    used = used_hours(session, ids)
    limits = _reached_limits(session, jobs, used)
    return [
        schemas.Job(
            id=job.id,
            kind=job.kind,
            name=job.name,
            state=job.state,
            spec=job.spec,
            after=after[job.id],
            inputs=known_inputs(session, job),
            epoch=job.epoch,
            ray_submission_id=latest.get(job.id),
            progress=None if job.progress is None else schemas.Progress.model_validate(job.progress),
            reason=None if job.reason is None else schemas.Reason.model_validate(job.reason),
            result=job.result,
            latency_table=job.latency_table,
            architectures=architectures[job.id],
            artifacts=artifacts[job.id],
            priority=job.priority,
            max_hours=job.max_hours,
            deadline=job.deadline,
            used_hours=used[job.id],
            limit_reached=described(limits[job.id]) or None,
            paused=not job.state.is_final and (job.paused_at is not None or limits[job.id] != []),
            cancel_requested=job.cancel_requested_at is not None,
            created_at=job.created_at,
            created_by=job.created_by,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )
        for job in jobs
    ]


def page_of_jobs(
    session: Session, *, state: JobState | None, kind: JobKind | None, before: int | None, limit: int
) -> schemas.JobPage:
    """A page of the newest jobs; its cursor is the number of its last one where more may follow."""
    jobs = list_jobs(session, state=state, kind=kind, before=before, limit=limit)
    cursor = str(jobs[-1].number) if len(jobs) == limit else None
    return schemas.JobPage(items=show_jobs(session, jobs), next_cursor=cursor)


def _reached_limits(session: Session, jobs: list[JobRow], used: dict[str, float]) -> dict[str, list[InvalidField]]:
    """What keeps each job from running, its own limits first; nothing does one that is over."""
    unfinished = [job for job in jobs if not job.state.is_final]
    projects, now = used_up_projects(session, {job.project for job in unfinished}), database_now(session)
    limits: dict[str, list[InvalidField]] = defaultdict(list)
    for job in unfinished:
        limits[job.id] += reached_limits(job, used[job.id], now)
        limits[job.id] += [projects[job.project]] if job.project in projects else []
    return limits


def _artifacts(session: Session, jobs: list[str]) -> dict[str, list[Artifact]]:
    rows = session.execute(
        select(ArtifactRow, BlobRow.size)
        .join(BlobRow, BlobRow.sha256 == ArtifactRow.sha256)
        .where(ArtifactRow.job.in_(jobs))
        .order_by(ArtifactRow.name)
    )
    artifacts: dict[str, list[Artifact]] = defaultdict(list)
    for row, size in rows:
        artifacts[row.job].append(Artifact(name=row.name, sha256=row.sha256, size=size, media_type=row.media_type))
    return artifacts
