"""What attempts printed, copied from Ray to the store: now and then while they run, and whole once they are over."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from services.storage.attempts import lock_attempt
from services.storage.database import database_now
from services.storage.tables import AttemptRow, BlobRow

COPY_SECONDS = 60.0  # between two copies of what a running attempt has printed
COPY_BYTES_PER_SECOND = 4096.0  # of one attempt: the copies before this one stay in the store for a while


@dataclass(frozen=True, kw_only=True)
class UncopiedLog:
    """An attempt of whose output the store lacks the last part."""

    submission_id: str
    is_over: bool
    copy: str | None  # the digest of what is kept so far


def uncopied_logs(session: Session) -> list[UncopiedLog]:
    """Attempts that ended within a day, first those that ended first, and running ones whose turn it is.

    Of what ended earlier Ray has nothing any more.
    """
    now = database_now(session)
    is_partial = or_(AttemptRow.logs_copied_at.is_(None), AttemptRow.logs_copied_at <= AttemptRow.finished_at)
    is_uncopied = or_(
        AttemptRow.finished_at.is_(None), and_(AttemptRow.finished_at > now - timedelta(days=1), is_partial)
    )
    rows = session.execute(
        select(AttemptRow, BlobRow.size)
        .outerjoin(BlobRow, BlobRow.sha256 == AttemptRow.logs)
        .where(is_uncopied)
        .order_by(AttemptRow.finished_at.nulls_last())
    )
    return [
        UncopiedLog(submission_id=row.submission_id, is_over=row.finished_at is not None, copy=row.logs)
        for row, size in rows
        if row.finished_at is not None or now - (row.logs_copied_at or row.created_at) >= _pause(size or 0)
    ]


def name_log(session: Session, log: UncopiedLog, sha256: str) -> None:
    """Makes a blob what an attempt printed, unless it has ended or been copied meanwhile: a later copy has more."""
    attempt, _ = lock_attempt(session, log.submission_id)
    if log.is_over == (attempt.finished_at is not None) and attempt.logs == log.copy:
        attempt.logs, attempt.logs_copied_at = sha256, database_now(session)


def is_whole(attempt: AttemptRow) -> bool:
    """Whether everything that an attempt printed is kept."""
    copied, finished = attempt.logs_copied_at, attempt.finished_at
    return copied is not None and finished is not None and copied > finished


def _pause(size: int) -> timedelta:
    return timedelta(seconds=max(COPY_SECONDS, size / COPY_BYTES_PER_SECOND))
