"""Counts of rows, as both databases count them."""

from services.client.schemas import FailureClass, JobKind, JobState, Reason
from services.storage.attempts import lose_attempt
from services.storage.counts import count
from services.storage.database import Database
from services.storage.worker_writes import fail
from tests.storage.builders import a_job, a_started_worker


def test_an_empty_service_counts_nothing(database: Database) -> None:
    with database.reading() as session:
        counts = count(session)

    assert set(counts.jobs) == {(kind, state) for kind in JobKind for state in JobState}
    assert {*counts.jobs.values(), *counts.failed_jobs.values(), *counts.failed_attempts.values()} == {0}
    assert (counts.events, counts.longest_silence_seconds, counts.longest_wait_seconds) == (0, 0, 0)


def test_failures_are_counted_by_who_has_to_act(database: Database) -> None:
    for failure in (FailureClass.USER_ERROR, FailureClass.OUT_OF_MEMORY):
        a_job(database)
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            fail(session, worker.submission_id, worker.token, Reason(failure=failure, message="why"))
    a_job(database)
    lost = a_started_worker(database)
    with database.writing.begin() as session:
        lose_attempt(session, lost.submission_id, "killed")

    with database.reading() as session:
        counts = count(session)

    assert {failure: number for failure, number in counts.failed_jobs.items() if number} == {FailureClass.USER_ERROR: 1}
    assert {failure: number for failure, number in counts.failed_attempts.items() if number} == {
        FailureClass.USER_ERROR: 1,
        FailureClass.OUT_OF_MEMORY: 1,
        FailureClass.INFRASTRUCTURE: 1,
    }
    assert counts.jobs[JobKind.PROFILE, JobState.QUEUED] == 2
    assert counts.events == 3 * 2 + 3
