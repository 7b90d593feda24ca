"""How many of everything there are: what operators watch."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.client.schemas import JobState
from services.storage.collection import unnamed_bytes
from services.storage.jobs import longest_wait_seconds
from services.storage.tables import AttemptOutcome, AttemptRow, BlobRow, CheckpointRow, JobRow, LatencyTableRow, Table


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of rows; every state and outcome is there, at 0 where there is none."""

    jobs: dict[JobState, int]
    paused_jobs: int
    ended_attempts: dict[AttemptOutcome, int]
    live_attempts: int  # whose workers may write
    longest_wait_seconds: float  # for how long a job could have started
    checkpoints: int
    latency_tables: int
    blob_bytes: int
    unnamed_blob_bytes: int  # of those that no row names: to be collected


def count(session: Session) -> Counts:
    """The counts now."""
    is_final = JobRow.finished_at.is_not(None)
    states = dict(session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all())
    outcomes = dict(session.execute(select(AttemptRow.outcome, func.count()).group_by(AttemptRow.outcome)).all())
    return Counts(
        jobs={state: states.get(state, 0) for state in JobState},
        paused_jobs=session.scalar(select(func.count()).where(JobRow.paused_at.is_not(None), ~is_final)) or 0,
        ended_attempts={outcome: outcomes.get(outcome, 0) for outcome in AttemptOutcome},
        live_attempts=outcomes.get(None, 0),
        longest_wait_seconds=longest_wait_seconds(session),
        checkpoints=_rows(session, CheckpointRow),
        latency_tables=_rows(session, LatencyTableRow),
        blob_bytes=session.scalar(select(func.sum(BlobRow.size))) or 0,
        unnamed_blob_bytes=unnamed_bytes(session),
    )


def _rows(session: Session, table: type[Table]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0
