"""How many of everything there are: what operators watch."""

from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.client.schemas import FailureClass, JobKind, JobState, JsonObject, ProjectRecord
from services.storage.attempts import longest_silence_seconds
from services.storage.collection import unnamed_bytes
from services.storage.database import database_now
from services.storage.jobs import longest_wait_seconds
from services.storage.limits import has_reached_a_limit
from services.storage.projects import list_projects
from services.storage.tables import AttemptOutcome, AttemptRow, BlobRow, CheckpointRow, JobRow, LatencyTableRow, Table


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of rows; every kind, state, outcome and class is there, at 0 where there is none."""

    jobs: dict[tuple[JobKind, JobState], int]
    paused_jobs: int
    failed_jobs: dict[FailureClass, int]
    ended_attempts: dict[AttemptOutcome, int]
    failed_attempts: dict[FailureClass, int]  # the lost ones are among them
    live_attempts: int  # whose workers may write
    longest_wait_seconds: float  # for how long a job could have started
    longest_silence_seconds: float  # since a worker was heard that may write
    events: int
    checkpoints: int
    latency_tables: int
    blob_bytes: int
    unnamed_blob_bytes: int  # of those that no row names: to be collected
    projects: list[ProjectRecord]


def count(session: Session) -> Counts:
    """The counts now."""
    is_paused = or_(JobRow.paused_at.is_not(None), has_reached_a_limit(database_now(session)))
    is_final = JobRow.finished_at.is_not(None)
    per_state = select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
    jobs = {(kind, state): number for kind, state, number in session.execute(per_state)}
    outcomes = dict(session.execute(select(AttemptRow.outcome, func.count()).group_by(AttemptRow.outcome)).all())
    return Counts(
        jobs={(kind, state): jobs.get((kind, state), 0) for kind in JobKind for state in JobState},
        paused_jobs=session.scalar(select(func.count()).where(is_paused, ~is_final)) or 0,
        failed_jobs=_by_failure(session, JobRow.reason),
        ended_attempts={outcome: outcomes.get(outcome, 0) for outcome in AttemptOutcome},
        failed_attempts=_by_failure(session, AttemptRow.failure),
        live_attempts=outcomes.get(None, 0),
        longest_wait_seconds=longest_wait_seconds(session),
        longest_silence_seconds=longest_silence_seconds(session),
        events=session.scalar(select(func.sum(JobRow.events))) or 0,
        checkpoints=_rows(session, CheckpointRow),
        latency_tables=_rows(session, LatencyTableRow),
        blob_bytes=session.scalar(select(func.sum(BlobRow.size))) or 0,
        unnamed_blob_bytes=unnamed_bytes(session),
        projects=list_projects(session),
    )


def _by_failure(session: Session, reason: InstrumentedAttribute[JsonObject | None]) -> dict[FailureClass, int]:
    """How many rows have a reason of each class."""
    failure = reason["failure"].as_string()
    per_class = select(failure, func.count()).where(reason.is_not(None)).group_by(failure)
    rows: dict[str, int] = dict(session.execute(per_class).all())
    return {failure: rows.get(failure, 0) for failure in FailureClass}


def _rows(session: Session, table: type[Table]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0
