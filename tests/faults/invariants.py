"""What must hold after every fault, whatever it was: tests that break a whole service end with `check`."""

from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.client.schemas import JobState
from services.storage.blob_store import BlobStore
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, CheckpointRow, EventRow, JobRow
from tests.faults.service import Service, wait_for

FINAL = ("succeeded", "failed", "cancelled")
NEXT = {  # of the events that move a job, what may follow what
    "queued": ("started", "cancelled", "failed"),
    "started": ("requeued", "paused", *FINAL),
    "requeued": ("started", "cancelled", "failed"),
    "paused": ("started", "cancelled", "failed"),  # by a worker that was asked to stop
    **dict.fromkeys(FINAL, ()),
}
SETTLED_SECONDS = 60.0  # after which nothing of ours runs without a row


def check(service: Service) -> None:
    """Fails where a promise of the service is broken, and says which."""
    assert any(plane.is_alive for plane in service.planes), "a service that recovers without an operator is up"
    wait_for(lambda: _unowned(service) == set(), "no Ray job runs without a live attempt", SETTLED_SECONDS)
    with service.database.reading() as session:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})  # all of one moment: jobs may run
        _check_jobs(session, service.acknowledged)
        _check_events(session)
        _check_epochs(session)
        _check_blobs(session, service.store)
    for plane in service.planes:
        answers = [line for line in plane.log.read_text().splitlines() if " status=" in line]
        assert answers != [], "the log tells of every request"
        assert [line for line in answers if " status=500" in line] == [], "no fault is answered by a 500"


def _unowned(service: Service) -> set[str]:
    running = service.ray.running()  # before the rows: what is started meanwhile has one
    with service.database.reading() as session:
        return running - set(session.scalars(select(AttemptRow.submission_id).where(AttemptRow.finished_at.is_(None))))


def _check_jobs(session: Session, acknowledged: list[str]) -> None:
    """Every acknowledged job is there; one that runs has its one live attempt, the others have none."""
    jobs = {job.id: job for job in session.scalars(select(JobRow))}
    assert set(acknowledged) <= jobs.keys(), "an acknowledged submission is never lost"
    keys = [(job.project, job.idempotency_key) for job in jobs.values()]
    assert len(set(keys)) == len(keys), "a key makes one job"
    live = [(row.job, row.epoch) for row in session.scalars(select(AttemptRow).where(AttemptRow.finished_at.is_(None)))]
    running = [(job.id, job.epoch) for job in jobs.values() if job.state is JobState.RUNNING]
    assert sorted(live) == sorted(running), "a job that runs has one live attempt, of its epoch, and no other has one"
    for job in jobs.values():
        assert job.started_at is None or job.created_at <= job.started_at, "no duration is negative"
        assert job.finished_at is None or (job.started_at or job.created_at) <= job.finished_at
        if job.result is not None and "epoch" in job.result:
            assert job.result["epoch"] == job.epoch, "the result is that of the last attempt"


def _check_events(session: Session) -> None:
    """Numbered without a gap, in legal order, with one end at most."""
    for job in session.scalars(select(JobRow)):
        events = session.scalars(select(EventRow).where(EventRow.job == job.id).order_by(EventRow.sequence)).all()
        assert [event.sequence for event in events] == list(range(1, job.events + 1))
        moves = [event for event in events if _is_move(event, events)]
        assert moves[0].kind == "queued"
        for before, after in pairwise(moves):
            assert after.kind in NEXT[before.kind], f"{after.kind} follows {before.kind}"
        states = {"queued": JobState.QUEUED, "requeued": JobState.QUEUED, "paused": JobState.QUEUED}
        last = moves[-1].kind
        assert states.get(last, JobState.RUNNING if last == "started" else last) == job.state
        assert [event.epoch for event in events if event.kind == "started"] == list(range(1, job.epoch + 1))
        if job.state.is_final:
            assert events[-1].kind == job.state, "nothing follows the end"


def _is_move(event: EventRow, events: list[EventRow]) -> bool:
    """Whether an event tells of another state; a queued job that is paused stays queued."""
    if event.kind != "paused":
        return event.kind in NEXT
    before = [other.kind for other in events[: event.sequence - 1] if other.kind in NEXT and other.kind != "paused"]
    return before[-1] == "started" and not any(
        other.kind == "paused" and other.epoch == event.epoch for other in events[: event.sequence - 1]
    )


def _check_epochs(session: Session) -> None:
    """Nothing was written by an attempt after its end, or after a later one began."""
    attempts = {row.submission_id: row for row in session.scalars(select(AttemptRow))}
    for row in session.scalars(select(EventRow).where(EventRow.attempt.is_not(None))):
        attempt = attempts[row.attempt or ""]
        assert row.epoch == attempt.epoch, f"event {row.sequence} of {row.job} is by an old epoch"
        assert attempt.finished_at is None or row.created_at <= attempt.finished_at
    for checkpoint in session.scalars(select(CheckpointRow)):
        attempt = attempts[checkpoint.attempt]
        assert attempt.finished_at is None or checkpoint.created_at <= attempt.finished_at
    by_job: dict[str, list[AttemptRow]] = {}
    for attempt in sorted(attempts.values(), key=lambda row: row.epoch):
        by_job.setdefault(attempt.job, []).append(attempt)
    for rows in by_job.values():
        for earlier, later in pairwise(rows):
            assert earlier.finished_at is not None
            assert earlier.finished_at <= later.created_at, "one writer at a time"


def _check_blobs(session: Session, store: BlobStore) -> None:
    """What a row names is in the store, whole, and hashes to its name: `open` verifies."""
    named = {
        *session.scalars(select(CheckpointRow.sha256)),
        *session.scalars(select(ArtifactRow.sha256)),
        *session.scalars(select(AttemptRow.logs).where(AttemptRow.logs.is_not(None))),
    }
    for sha256 in named:
        size = session.get_one(BlobRow, sha256 or "").size
        with store.open(sha256 or "") as body:
            assert len(body.read()) == size
