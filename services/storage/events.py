"""A job's history: numbered from 1 without gaps, so that a reader who has seen N asks for what comes after N."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.client import schemas
from services.client.attempt_schemas import WorkerEvent
from services.client.schemas import JsonObject
from services.storage.errors import InvalidRequest
from services.storage.tables import AttemptRow, EventRow, JobRow

PAGE = 1000
SERVICE_KINDS = frozenset(
    {
        *("queued", "started", "checkpoint", "requeued", "pause_requested", "paused", "limits_set", "resumed"),
        *("cancel_requested", "succeeded", "failed", "cancelled"),
    }
)


def add_event(session: Session, job: JobRow, kind: str, data: JsonObject, now: datetime) -> None:
    """Appends what the service did to a job. The job's row is locked by the caller."""
    _append(session, job, EventRow(attempt=None, worker_sequence=None, kind=kind, data=data, created_at=now))


def add_worker_events(
    session: Session, job: JobRow, attempt: AttemptRow, events: list[WorkerEvent], now: datetime
) -> None:
    """Appends those of a worker's events that are not there yet.

    Raises:
        InvalidRequest: an event claims to be one of the service's.
    """
    for index, event in enumerate(events):
        if event.kind in SERVICE_KINDS:
            raise InvalidRequest.at(f"items.{index}.kind", f"{event.kind!r} is written by the service alone")
    known = set(
        session.scalars(
            select(EventRow.worker_sequence).where(
                EventRow.attempt == attempt.submission_id,
                EventRow.worker_sequence.in_([event.worker_sequence for event in events]),
            )
        )
    )
    for event in events:
        if event.worker_sequence not in known:
            known.add(event.worker_sequence)
            row = EventRow(
                attempt=attempt.submission_id,
                worker_sequence=event.worker_sequence,
                kind=event.kind,
                data=event.data,
                created_at=now,
            )
            _append(session, job, row)


def list_events(session: Session, job: str, after: int) -> list[schemas.Event]:
    """At most PAGE events of a job whose sequence is greater than `after`, in order."""
    rows = session.scalars(
        select(EventRow).where(EventRow.job == job, EventRow.sequence > after).order_by(EventRow.sequence).limit(PAGE)
    )
    return [
        schemas.Event(sequence=row.sequence, kind=row.kind, epoch=row.epoch, data=row.data, created_at=row.created_at)
        for row in rows
    ]


def submitting_span(session: Session, job: str) -> str | None:
    """The `traceparent` of the request that submitted a job, where it was traced: its first event has it."""
    data = session.scalar(select(EventRow.data).where(EventRow.job == job, EventRow.sequence == 1)) or {}
    found = data.get("traceparent")
    return None if found is None else str(found)


def count_events(session: Session, jobs: Collection[str]) -> dict[str, int]:
    """How many events each of the jobs has: the number of its last one."""
    counts = select(JobRow.id, JobRow.events).where(JobRow.id.in_(jobs))
    return dict(session.execute(counts).all())


def _append(session: Session, job: JobRow, event: EventRow) -> None:
    job.events += 1
    event.job, event.sequence, event.epoch = job.id, job.events, job.epoch
    session.add(event)
