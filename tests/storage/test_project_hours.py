"""Once a project has used its hours none of its jobs starts or goes on, and with more of them all do by themselves."""

import re

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.client.attempt_schemas import Heartbeat
from services.client.schemas import JobKind, JobState, Limits, ProjectLimits
from services.storage.attempts import lose_attempt, stop_where_projects_have_no_hours_left
from services.storage.counts import count
from services.storage.database import Database
from services.storage.errors import Conflict
from services.storage.events import list_events
from services.storage.jobs import (
    claim_job,
    longest_wait_seconds,
    pause_where_limits_are_reached,
    request_cancel,
    request_pause,
    resume_job,
)
from services.storage.projects import limit_project, show_project
from services.storage.tables import FIRST_PROJECT, ProjectRow
from services.storage.worker_writes import acknowledge_stop, add_checkpoint, heartbeat, succeed
from tests.storage.builders import (
    BLOB,
    a_blob,
    a_checkpoint,
    a_job,
    a_started_worker,
    a_success,
    end_backoff,
    events,
    shown,
    work_for,
)


def give(session: Session, hours: float | None, project: str = FIRST_PROJECT) -> None:
    limit_project(session, project, ProjectLimits(max_hours=hours))


def look(session: Session) -> None:
    """What the dispatcher does about limits."""
    pause_where_limits_are_reached(session)
    stop_where_projects_have_no_hours_left(session)


def test_a_project_that_nobody_has_limited_has_no_limit(database: Database):
    a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        assert not work_for(session, worker, hours=1_000_000).stop
        look(session)

        assert not heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        project = show_project(session, FIRST_PROJECT)
        assert (project.max_hours, project.left_hours) == (None, None)
        assert project.used_hours == pytest.approx(1_000_000)


def test_hours_of_all_jobs_and_attempts_count_and_none_of_another_project(database: Database):
    a_job(database)
    first = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 10)
        work_for(session, first, hours=1)
        lose_attempt(session, first.submission_id, "killed")
        end_backoff(session)
    again = a_started_worker(database)
    a_job(database)
    second = a_started_worker(database)
    a_job(database, project="elsewhere")
    stranger = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, again, hours=0.5)
        work_for(session, second, hours=1, devices=4)
        work_for(session, stranger, hours=100)

        project = show_project(session, FIRST_PROJECT)
        assert project.used_hours == pytest.approx(5.5, abs=0.01)
        assert project.left_hours == pytest.approx(4.5, abs=0.01)
        assert show_project(session, "nowhere").used_hours == 0


def test_a_running_job_stops_and_goes_on_where_it_was_once_there_are_more_hours(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        give(session, 2)
        work_for(session, worker, hours=1.9)
        look(session)
        assert not work_for(session, worker, hours=0.2).stop

        look(session)
        look(session)

        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        seen = shown(session, job)
        assert (seen.state, seen.paused) == (JobState.RUNNING, True)
        add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(BLOB))
        acknowledge_stop(session, worker.submission_id, worker.token)
    with database.writing.begin() as session:
        assert claim_job(session) is None
        asked, *_, stopped = list_events(session, job, 2)
        assert (asked.kind, list(asked.data), stopped.kind) == ("pause_requested", ["project.max_hours"], "paused")
        assert re.search(r"2\.1\d* of 2 of project default were used: an operator gives it more", str(asked.data))
        seen = shown(session, job)
        assert (seen.state, seen.paused) == (JobState.QUEUED, True)
        assert re.match(r"project\.max_hours: 2\.1\d* of 2 of project default", str(seen.limit_reached))

        give(session, 3)
        assert (shown(session, job).paused, shown(session, job).limit_reached) == (False, None)

    following = a_started_worker(database)

    assert following.assignment.checkpoints == [a_checkpoint(BLOB)]
    with database.writing.begin() as session:
        look(session)
        assert not heartbeat(session, following.submission_id, following.token, Heartbeat()).stop
        assert events(session, job) == [
            "queued",
            "started",
            "pause_requested",
            "checkpoint",
            "paused",
            "started",
        ]


def test_a_queued_job_does_not_start_and_those_of_other_projects_do(database: Database):
    held, other = a_job(database, priority=100), a_job(database, project="elsewhere")
    with database.writing.begin() as session:
        give(session, 0)
        give(session, 1, "elsewhere")
        look(session)

    assert a_started_worker(database).assignment.job == other
    with database.writing.begin() as session:
        assert claim_job(session) is None
        assert longest_wait_seconds(session) == 0
        assert count(session).paused_jobs == 1
        assert (shown(session, held).paused, events(session, held)) == (True, ["queued"])

        give(session, None)

        assert count(session).paused_jobs == 0
    assert a_started_worker(database).assignment.job == held


def test_a_success_wins_over_hours_that_were_used_meanwhile(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 1)
        work_for(session, worker, hours=2)
        look(session)
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
        look(session)

        seen = shown(session, job)
        assert (seen.state, seen.paused, seen.limit_reached) == (JobState.SUCCEEDED, False, None)
        assert events(session, job) == ["queued", "started", "pause_requested", "succeeded"]


def test_a_worker_that_is_never_heard_of_is_followed_once_there_are_more_hours(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 0)
        look(session)
        lose_attempt(session, worker.submission_id, "not heard of")
        end_backoff(session)
        assert claim_job(session) is None
        give(session, 1)

    assert a_started_worker(database).assignment.epoch == 2
    with database.reading() as session:
        assert events(session, job) == ["queued", "started", "pause_requested", "requeued", "started"]


def test_a_worker_that_stops_after_hours_were_given_again_counts_as_no_failure(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 0)
        look(session)
        give(session, None)
        acknowledge_stop(session, worker.submission_id, worker.token)

    assert a_started_worker(database).assignment.epoch == 2
    with database.reading() as session:
        assert events(session, job) == ["queued", "started", "pause_requested", "paused", "started"]


def test_a_pause_of_the_user_outlasts_more_hours(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 0)
        look(session)
        request_pause(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)
        give(session, None)

        assert claim_job(session) is None
        assert shown(session, job).paused


def test_a_job_that_is_resumed_waits_for_hours_of_its_project(database: Database):
    job = a_job(database, max_hours=1)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 1)
        work_for(session, worker, hours=1)
        look(session)
        acknowledge_stop(session, worker.submission_id, worker.token)
        assert len(list_events(session, job, 2)) == 2, "one request to stop is enough"
    with database.writing.begin() as session, pytest.raises(Conflict) as refused:
        resume_job(session, job)
    assert [field.field for field in refused.value.fields] == ["max_hours"]
    with database.writing.begin() as session:
        resume_job(session, job, Limits(max_hours=5))

        seen = shown(session, job)
        assert (seen.paused, str(seen.limit_reached)[:17]) == (True, "project.max_hours")
        assert claim_job(session) is None
        give(session, 2)
    assert a_started_worker(database).assignment.job == job


def test_a_job_that_waits_for_hours_can_be_cancelled(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        give(session, 0)
        look(session)
        request_cancel(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)

        assert shown(session, job).state is JobState.CANCELLED


def test_no_project_has_less_than_no_hours(database: Database):
    with database.writing.begin() as session:
        give(session, 0)

    with database.writing() as session, pytest.raises(IntegrityError):
        session.execute(update(ProjectRow).values(max_hours=-1))
