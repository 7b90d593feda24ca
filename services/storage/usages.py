"""What jobs have taken, as the workers of their attempts said at the end."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.client.attempt_schemas import USAGE, Usage
from services.client.schemas import JobKind
from services.storage.tables import EventRow, JobRow

RECENT = 200  # jobs of a kind


def recently_started(session: Session, kind: JobKind) -> list[JobRow]:
    """The newest jobs of a kind that have had an attempt, newest first."""
    started = select(JobRow).where(JobRow.kind == kind, JobRow.epoch > 0)
    return list(session.scalars(started.order_by(JobRow.number.desc()).limit(RECENT)))


def usages_of(session: Session, job: str) -> list[Usage]:
    """What the attempts at a job took, in their order; of those that were killed nothing is known."""
    events = select(EventRow.data).where(EventRow.job == job, EventRow.kind == USAGE).order_by(EventRow.sequence)
    return [Usage.model_validate(data) for data in session.scalars(events)]
