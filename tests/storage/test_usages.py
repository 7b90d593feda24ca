"""What jobs have taken, as their attempts said."""

from services.client.attempt_schemas import USAGE, Usage, WorkerEvent
from services.client.schemas import JobKind
from services.storage.attempts import lose_attempt
from services.storage.database import Database
from services.storage.usages import recently_started, usages_of
from services.storage.worker_writes import report_events
from tests.storage.builders import Worker, a_job, a_phase, a_started_worker, a_usage, end_backoff


def tell(database: Database, worker: Worker, usage: Usage) -> None:
    event = WorkerEvent(worker_sequence=0, kind=USAGE, data=usage.model_dump(mode="json"))
    with database.writing.begin() as session:
        report_events(session, worker.submission_id, worker.token, [event])


def test_usages_are_those_of_every_attempt_that_told_one_in_their_order(database: Database):
    job = a_job(database)
    usages = [a_usage(10.0, search=a_phase(4, 8.0)), a_usage(20.0)]
    for usage in usages:
        worker = a_started_worker(database)
        tell(database, worker, usage)
        with database.writing.begin() as session:
            lose_attempt(session, worker.submission_id, "killed")
            end_backoff(session)
    a_started_worker(database)

    with database.reading() as session:
        assert usages_of(session, job) == usages


def test_jobs_of_a_kind_that_have_started_come_newest_first(database: Database):
    first, second, _ = (a_job(database, JobKind.EVALUATE) for _ in range(3))
    for _ in range(2):
        a_started_worker(database)
    a_job(database, JobKind.PROFILE)

    with database.reading() as session:
        assert [row.id for row in recently_started(session, JobKind.EVALUATE)] == [second, first]
