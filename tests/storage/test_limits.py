"""A job that reaches its deadline or its hours is paused, not killed, and goes on once the limit is raised."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from services.client.attempt_schemas import Heartbeat
from services.client.schemas import FailureClass, JobKind, JobState, Limits, Reason
from services.storage.attempts import lose_attempt
from services.storage.database import Database
from services.storage.errors import Conflict
from services.storage.events import list_events
from services.storage.jobs import (
    claim_job,
    find_job,
    longest_wait_seconds,
    pause_where_limits_are_reached,
    request_cancel,
    request_pause,
    resume_job,
)
from services.storage.tables import AttemptRow, JobRow
from services.storage.worker_writes import acknowledge_stop, add_checkpoint, fail, heartbeat, succeed
from tests.storage.builders import (
    BLOB,
    a_blob,
    a_checkpoint,
    a_job,
    a_started_worker,
    a_success,
    end_backoff,
    events,
    pass_deadline,
    shown,
    work_for,
)

LATER = datetime(2999, 1, 1, tzinfo=UTC)


def test_a_job_within_its_limits_is_claimed(database: Database):
    job = a_job(database, max_hours=0.001)
    with database.writing.begin() as session:
        resume_job(session, job, Limits(deadline=LATER))
        pause_where_limits_are_reached(session)

    assert a_started_worker(database).assignment.job == job


def test_a_job_is_not_claimed_after_its_deadline_even_before_it_was_paused(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        pass_deadline(session, job)

        assert claim_job(session) is None
        assert longest_wait_seconds(session) == 0


def test_a_queued_job_is_paused_at_its_deadline_once_and_says_why(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        pass_deadline(session, job)
    for _ in range(2):
        with database.writing.begin() as session:
            pause_where_limits_are_reached(session)

    with database.reading() as session:
        seen, last = shown(session, job), list_events(session, job, 0)[-1]
        assert (seen.state, seen.paused) == (JobState.QUEUED, True)
        assert "has passed: resume it with a later one, as `fasterseg resume" in str(seen.limit_reached)
        assert (last.kind, list(last.data)) == ("paused", ["deadline"])
        assert events(session, job) == ["queued", "paused"]


def test_a_running_job_is_asked_to_pause_and_goes_on_where_it_was_with_more_hours(database: Database):
    job = a_job(database, max_hours=2)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        work_for(session, worker, hours=1.9)
        pause_where_limits_are_reached(session)
        assert not work_for(session, worker, hours=0.2).stop

        pause_where_limits_are_reached(session)

        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        assert shown(session, job).state is JobState.RUNNING
        add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(BLOB))
        acknowledge_stop(session, worker.submission_id, worker.token)
    with (
        database.writing.begin() as session,
        pytest.raises(Conflict, match=r"2\.1\d* of 2 were used: resume it"),
    ):
        resume_job(session, job)
    with database.writing.begin() as session:
        assert claim_job(session) is None
        resume_job(session, job, Limits(max_hours=3))
        assert shown(session, job).limit_reached is None

    following = a_started_worker(database)

    assert following.assignment.checkpoints == [a_checkpoint(BLOB)]
    with database.reading() as session:
        assert events(session, job) == [
            *("queued", "started", "pause_requested", "checkpoint", "paused", "limits_set", "resumed", "started")
        ]
        assert list_events(session, job, 5)[0].data == {"max_hours": 3.0}


def test_hours_of_all_attempts_count_times_their_devices(database: Database):
    job = a_job(database)
    first = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, first, hours=1)
        lose_attempt(session, first.submission_id, "killed")
        end_backoff(session)
    second = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, second, hours=0.5, devices=4)

        assert shown(session, job).used_hours == pytest.approx(3, abs=0.01)


def test_waiting_for_a_machine_costs_nothing(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        session.get_one(AttemptRow, worker.submission_id).created_at -= timedelta(hours=9)
        heartbeat(session, worker.submission_id, worker.token, Heartbeat())

        assert shown(session, job).used_hours == 0


def test_hours_count_until_a_worker_was_last_heard_of(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, worker, hours=1)
        attempt = session.get_one(AttemptRow, worker.submission_id)
        assert attempt.placed_at is not None
        attempt.placed_at -= timedelta(hours=5)  # silent since
        lose_attempt(session, worker.submission_id, "not heard of")

        assert shown(session, job).used_hours == pytest.approx(1, abs=0.01)


def test_hours_are_not_given_back_where_the_clock_jumps(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, worker, hours=1)
        work_for(session, worker, hours=-3)

        assert shown(session, job).used_hours == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_what_a_worker_did_until_its_end_counts(database: Database, end: str):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        heartbeat(session, worker.submission_id, worker.token, Heartbeat(devices=1))
        attempt = session.get_one(AttemptRow, worker.submission_id)
        assert attempt.placed_at is not None
        attempt.placed_at -= timedelta(hours=1)
        if end == "succeed":
            succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
        else:
            fail(session, worker.submission_id, worker.token, Reason(failure=FailureClass.USER_ERROR, message=""))

        assert shown(session, job).used_hours == pytest.approx(1, abs=0.01)


def test_a_success_wins_over_a_limit_that_was_reached_meanwhile(database: Database):
    job = a_job(database, max_hours=1)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, worker, hours=2)
        pause_where_limits_are_reached(session)
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
        pause_where_limits_are_reached(session)

        seen = shown(session, job)
        assert (seen.state, seen.paused, seen.limit_reached) == (JobState.SUCCEEDED, False, None)
        assert events(session, job) == ["queued", "started", "pause_requested", "succeeded"]


def test_a_job_that_is_over_is_not_touched_by_its_deadline(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
        pass_deadline(session, job)
        before = shown(session, job)

        pause_where_limits_are_reached(session)

        assert shown(session, job) == before
        assert before.limit_reached is None
        with pytest.raises(Conflict, match="has succeeded"):
            resume_job(session, job, Limits(deadline=LATER))


def test_a_job_that_has_reached_its_deadline_can_be_cancelled(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        pass_deadline(session, job)
        pause_where_limits_are_reached(session)
        request_cancel(session, job)

        assert shown(session, job).state is JobState.CANCELLED


def test_a_deadline_holds_for_a_worker_that_is_never_heard_of(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        pass_deadline(session, job)
        pause_where_limits_are_reached(session)
        lose_attempt(session, worker.submission_id, "not heard of")
        end_backoff(session)

        assert claim_job(session) is None
        assert events(session, job) == ["queued", "started", "pause_requested", "requeued"]


def test_limits_are_raised_while_a_job_runs(database: Database):
    job = a_job(database, max_hours=1)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        resume_job(session, job, Limits(max_hours=3, deadline=LATER))
        assert not work_for(session, worker, hours=2).stop
        pause_where_limits_are_reached(session)

        seen = shown(session, job)
        assert (seen.state, seen.paused, seen.max_hours, seen.deadline) == (JobState.RUNNING, False, 3, LATER)
        assert events(session, job) == ["queued", "started", "limits_set"]


def test_a_raise_of_one_limit_does_not_help_where_both_are_reached(database: Database):
    job = a_job(database, max_hours=1)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, worker, hours=1)
        pass_deadline(session, job)
        pause_where_limits_are_reached(session)
        assert list(list_events(session, job, 2)[0].data) == ["deadline", "max_hours"]

    with pytest.raises(Conflict) as refused, database.writing.begin() as session:
        resume_job(session, job, Limits(max_hours=5))
    assert [field.field for field in refused.value.fields] == ["deadline"]
    with database.reading() as session:
        assert shown(session, job).max_hours == 1, "a refused raise changes nothing"


def test_a_pause_of_the_user_does_not_end_with_a_deadline_that_has_passed(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        assert shown(session, job).limit_reached is None
        pass_deadline(session, job)
        pause_where_limits_are_reached(session)
        assert events(session, job) == ["queued", "paused"]

    with database.writing.begin() as session, pytest.raises(Conflict, match="deadline: .* has passed"):
        resume_job(session, job)


def test_a_deadline_in_any_zone_is_the_same_moment(database: Database):
    job = a_job(database)
    deadline = datetime.fromisoformat("2999-01-01T02:00:00+02:00")
    with database.writing.begin() as session:
        resume_job(session, job, Limits(deadline=deadline))

    with database.reading() as session:
        assert shown(session, job).deadline == deadline
        assert find_job(session, job).deadline == datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "values",
    [{"device_seconds": -1.0}, {"device_seconds": 1.0}, {"devices": 1}, {"placed_at": LATER, "devices": 0}],
    ids=str,
)
def test_no_attempt_works_without_devices_or_backwards(database: Database, values: dict[str, object]):
    a_job(database)
    a_started_worker(database)

    with database.writing() as session, pytest.raises(IntegrityError):
        session.execute(update(AttemptRow).values(**values))


def test_no_job_has_hours_to_give_back(database: Database):
    a_job(database)

    with database.writing() as session, pytest.raises(IntegrityError):
        session.execute(update(JobRow).values(max_hours=0))
