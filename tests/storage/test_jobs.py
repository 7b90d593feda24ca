"""Jobs move along legal transitions, each with its event; children follow their parents."""

import sys
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from services.client.schemas import FailureClass, JobKind, JobState, JobSubmission, Reason
from services.storage.database import Database, database_now
from services.storage.errors import Conflict, InvalidRequest, NotFound
from services.storage.events import list_events
from services.storage.jobs import (
    NewJob,
    cancel_job,
    claim_job,
    fail_job,
    find_job,
    insert_job,
    list_jobs,
    locked_job,
    move,
    request_cancel,
    request_pause,
    resume_job,
)
from services.storage.tables import FIRST_PROJECT, JobEdgeRow, JobRow
from services.storage.worker_writes import succeed
from tests.storage.builders import a_job, a_started_worker, a_success

LONG = sys.getrecursionlimit()  # jobs in a chain


def state_of(database: Database, job: str) -> JobState:
    with database.reading() as session:
        return find_job(session, job).state


def event_kinds(database: Database, job: str) -> list[str]:
    with database.reading() as session:
        return [event.kind for event in list_events(session, job, 0)]


def test_a_new_job_is_queued_with_its_event(database: Database):
    job = a_job(database)

    assert state_of(database, job) is JobState.QUEUED
    assert event_kinds(database, job) == ["queued"]


def test_an_unknown_job_is_not_found(database: Database):
    with database.reading() as session, pytest.raises(NotFound, match="there is no job aaaaaaaaaaaa"):
        find_job(session, "aaaaaaaaaaaa")


def test_claim_takes_the_oldest_runnable_job(database: Database):
    first, _ = a_job(database), a_job(database)

    with database.writing.begin() as session:
        claimed = claim_job(session)
        assert claimed is not None
        assert (claimed.id, claimed.state, claimed.epoch) == (first, JobState.RUNNING, 1)

    assert event_kinds(database, first) == ["queued", "started"]


def claimed(database: Database, per_project: int | None = None) -> str | None:
    with database.writing.begin() as session:
        job = claim_job(session, per_project)
        return None if job is None else job.id


def test_claim_takes_the_highest_priority_and_of_equals_the_oldest(database: Database):
    low, first, second, high = (a_job(database, priority=priority) for priority in (-1, 0, 0, 5))

    assert [claimed(database) for _ in range(5)] == [high, first, second, low, None]


def test_a_projects_limit_leaves_room_for_others_and_ends_with_its_jobs(database: Database):
    first, second, third = (a_job(database, project="busy") for _ in range(3))
    other = a_job(database, project="quiet")
    worker = a_started_worker(database)

    assert [claimed(database, per_project=2) for _ in range(3)] == [second, other, None]

    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
    assert worker.assignment.job == first
    assert claimed(database, per_project=2) == third


def test_a_paused_job_is_not_claimed_until_it_is_resumed(database: Database):
    paused, other = a_job(database), a_job(database)
    for _ in range(2):
        with database.writing.begin() as session:
            request_pause(session, paused)
    assert [claimed(database), claimed(database)] == [other, None]

    for _ in range(2):
        with database.writing.begin() as session:
            resume_job(session, paused)
    assert claimed(database) == paused
    assert event_kinds(database, paused) == ["queued", "paused", "resumed", "started"]


def test_a_paused_job_can_be_cancelled(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        request_cancel(session, job)

    assert state_of(database, job) is JobState.CANCELLED


@pytest.mark.parametrize("request_", [request_pause, resume_job])
def test_a_job_that_is_over_is_neither_paused_nor_resumed(
    database: Database, request_: Callable[[Session, str], JobRow]
):
    job = a_job(database)
    with database.writing.begin() as session:
        request_cancel(session, job)

    with database.writing.begin() as session, pytest.raises(Conflict, match="was cancelled"):
        request_(session, job)


def test_claim_leaves_a_job_whose_parent_has_not_succeeded(database: Database):
    parent = a_job(database)
    a_job(database, after=[parent])
    a_started_worker(database)

    with database.writing.begin() as session:
        assert claim_job(session) is None


def test_claim_takes_a_child_once_every_parent_has_succeeded(database: Database):
    parents = [a_job(database), a_job(database)]
    child = a_job(database, after=parents)
    for _ in parents:
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))

    with database.writing.begin() as session:
        claimed = claim_job(session)
        assert claimed is not None
        assert claimed.id == child


def test_simultaneous_claims_take_different_jobs(database: Database):
    jobs = {a_job(database) for _ in range(4)}
    barrier = threading.Barrier(4)
    claimed: list[str] = []

    def claim() -> None:
        barrier.wait()
        with database.writing.begin() as session:
            job = claim_job(session)
            assert job is not None
            claimed.append(job.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(jobs)


@pytest.mark.parametrize("final", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
@pytest.mark.parametrize("to", list(JobState))
def test_a_final_job_never_moves(database: Database, final: JobState, to: JobState):
    job = a_job(database)
    reason = Reason(failure=FailureClass.USER_ERROR, message="")
    with database.writing.begin() as session:
        claim_job(session)
        move(session, locked_job(session, job), final, "moved", database_now(session), reason)

    with database.writing.begin() as session, pytest.raises(Conflict, match="cannot become"):
        move(session, locked_job(session, job), to, "moved", database_now(session), reason)


def test_a_failed_job_fails_its_descendants(database: Database):
    parent = a_job(database)
    child = a_job(database, after=[parent])
    grandchild = a_job(database, after=[child, parent])
    with database.writing.begin() as session:
        claim_job(session)
        reason = Reason(failure=FailureClass.USER_ERROR, message="wrong")
        fail_job(session, locked_job(session, parent), reason, database_now(session))

    with database.reading() as session:
        for descendant in (child, grandchild):
            job = find_job(session, descendant)
            assert job.state is JobState.FAILED
            assert job.reason is not None
            assert job.reason["failure"] == FailureClass.PARENT_FAILED
    assert event_kinds(database, grandchild) == ["queued", "failed"]


def test_a_cancelled_job_fails_its_children(database: Database):
    parent = a_job(database)
    child = a_job(database, after=[parent])
    with database.writing.begin() as session:
        cancel_job(session, locked_job(session, parent), database_now(session))

    assert state_of(database, child) is JobState.FAILED


def test_a_cancelled_job_fails_all_of_a_long_chain(database: Database):
    first = a_job(database)
    with database.writing.begin() as session:
        row = find_job(session, first)
        now = database_now(session)
        chain = [first, *(f"{number:012}" for number in range(LONG))]
        columns = [column.key for column in JobRow.__table__.columns if column.key not in ("number", "id")]
        values = {column: getattr(row, column) for column in columns} | {"events": 0}
        session.execute(insert(JobRow), [{**values, "id": job} for job in chain[1:]])
        edges = [{"parent": parent, "child": child, "position": 0} for parent, child in pairwise(chain)]
        session.execute(insert(JobEdgeRow), edges)

    with database.writing.begin() as session:
        cancel_job(session, locked_job(session, first), now)

    with database.reading() as session:
        last = find_job(session, chain[-1])
        assert session.scalar(select(func.count()).where(JobRow.state == JobState.FAILED)) == LONG
    assert last.reason == {
        "failure": FailureClass.PARENT_FAILED,
        "message": f"job {chain[-2]}, which this one waits for, has failed",
    }


def test_cancelling_a_queued_job_ends_it_at_once(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        request_cancel(session, job)
        request_cancel(session, job)

    assert state_of(database, job) is JobState.CANCELLED
    assert event_kinds(database, job) == ["queued", "cancel_requested", "cancelled"]


def test_cancelling_a_running_job_asks_its_worker_once(database: Database):
    job = a_job(database)
    a_started_worker(database)
    for _ in range(2):
        with database.writing.begin() as session:
            request_cancel(session, job)

    assert state_of(database, job) is JobState.RUNNING
    assert event_kinds(database, job) == ["queued", "started", "cancel_requested"]


def test_a_job_that_succeeded_cannot_be_cancelled(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))

    with database.writing.begin() as session, pytest.raises(Conflict, match="has succeeded already"):
        request_cancel(session, job)


def test_one_idempotency_key_makes_one_job_under_a_race(database: Database):
    submission = JobSubmission(kind=JobKind.PROFILE)
    barrier = threading.Barrier(4)
    made: list[str] = []

    def submit() -> None:
        barrier.wait()
        with database.writing.begin() as session:
            new = NewJob(submission=submission, spec={}, sources={}, idempotency_key="key", project=FIRST_PROJECT)
            made.append(insert_job(session, new).id)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 4
    assert len(set(made)) == 1


def test_an_idempotency_key_refuses_another_submission(database: Database):
    with database.writing.begin() as session:
        profile = JobSubmission(kind=JobKind.PROFILE)
        insert_job(
            session, NewJob(submission=profile, spec={}, sources={}, idempotency_key="key", project=FIRST_PROJECT)
        )

    export = NewJob(
        submission=JobSubmission(kind=JobKind.EXPORT), spec={}, sources={}, idempotency_key="key", project=FIRST_PROJECT
    )
    with database.writing.begin() as session, pytest.raises(InvalidRequest, match="another submission"):
        insert_job(session, export)


def test_jobs_are_listed_newest_first_with_filters(database: Database):
    profile, search = a_job(database), a_job(database, JobKind.SEARCH)
    with database.writing.begin() as session:
        claim_job(session)

    with database.reading() as session:
        everything = list_jobs(session, state=None, kind=None, before=None, limit=10)
        assert [job.id for job in everything] == [search, profile]
        older = list_jobs(session, state=None, kind=None, before=everything[0].number, limit=10)
        assert [job.id for job in older] == [profile]
        assert [job.id for job in list_jobs(session, state=JobState.RUNNING, kind=None, before=None, limit=10)] == [
            profile
        ]
        assert [job.id for job in list_jobs(session, state=None, kind=JobKind.SEARCH, before=None, limit=10)] == [
            search
        ]


def test_events_are_numbered_without_gaps_and_resumable(database: Database):
    job = a_job(database)
    a_started_worker(database)

    with database.reading() as session:
        assert [event.sequence for event in list_events(session, job, 0)] == [1, 2]
        assert [event.kind for event in list_events(session, job, 1)] == ["started"]
