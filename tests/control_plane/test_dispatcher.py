"""The dispatcher's cases, each with a fake Ray: what it starts, what it waits for, what it ends."""

import logging
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

from services.client.attempt_schemas import Heartbeat
from services.client.schemas import JobKind, JobState, ProjectLimits
from services.control_plane.dispatcher import Action, Dispatcher, decide
from services.control_plane.parts import Parts
from services.control_plane.ray_jobs import RayJob, RayState
from services.storage.attempts import LEASE_SECONDS, Dispatch, LiveAttempt
from services.storage.database import Database, database_now
from services.storage.errors import Unavailable
from services.storage.events import list_events
from services.storage.jobs import find_job, request_cancel, request_pause
from services.storage.projects import limit_project
from services.storage.tables import FIRST_PROJECT, AttemptRow, JobRow
from services.storage.worker_writes import acknowledge_stop, heartbeat, redeem_ticket, succeed
from tests.clock import FakeClock
from tests.control_plane.builders import a_dispatcher, stops_after
from tests.control_plane.fakes import FakeRay
from tests.storage.builders import Worker, a_job, a_success, end_backoff, end_lease, pass_deadline, work_for


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def dispatcher(parts: Parts, clock: FakeClock, registry: CollectorRegistry) -> Dispatcher:
    return a_dispatcher(parts, registry=registry, clock=clock)


def be_steady(dispatcher: Dispatcher, clock: FakeClock) -> None:
    """Ticks for one lease length."""
    for _ in range(5):
        dispatcher.tick()
        clock.now += LEASE_SECONDS / 4


def redeem(database: Database, ray: FakeRay) -> Worker:
    """The worker of what was submitted last, running."""
    dispatch = ray.submitted[-1]
    ray.say(dispatch.submission_id, RayState.RUNNING)
    with database.writing.begin() as session:
        assignment = redeem_ticket(session, dispatch.submission_id, dispatch.ticket)
    return Worker(dispatch.submission_id, assignment.token, assignment)


def state_of(database: Database, job: str) -> JobState:
    with database.reading() as session:
        return find_job(session, job).state


def an_attempt(**values: object) -> LiveAttempt:
    attempt = {"submission_id": "a", "redeemed": True, "age_seconds": 100.0, "lease_seconds": 30.0}
    return LiveAttempt(**{"cancel_seconds": None, **attempt, **values})


PENDING, RUNNING = RayJob(RayState.PENDING), RayJob(RayState.RUNNING)


@pytest.mark.parametrize(
    ("attempt", "job", "action"),
    [
        (an_attempt(), RUNNING, Action.WAIT),
        (an_attempt(lease_seconds=-1.0), RUNNING, Action.REAP),
        (an_attempt(lease_seconds=-1.0), None, Action.REAP),
        (an_attempt(), None, Action.WAIT),
        (an_attempt(), RayJob(RayState.FAILED), Action.LOSE),
        (an_attempt(), RayJob(RayState.STOPPED), Action.LOSE),
        (an_attempt(), RayJob(RayState.SUCCEEDED), Action.LOSE),
        (an_attempt(redeemed=False, age_seconds=5.0), None, Action.WAIT),
        (an_attempt(redeemed=False, age_seconds=31.0), None, Action.SUBMIT),
        (an_attempt(redeemed=False, age_seconds=70.0, lease_seconds=-10.0), None, Action.REAP),
        (an_attempt(redeemed=False), PENDING, Action.EXTEND),
        (an_attempt(redeemed=False, age_seconds=601.0), PENDING, Action.WAIT),
        (an_attempt(redeemed=False, age_seconds=700.0, lease_seconds=-1.0), PENDING, Action.REAP),
        (an_attempt(redeemed=False, lease_seconds=-1.0), RUNNING, Action.REAP),
        (an_attempt(cancel_seconds=59.0), RUNNING, Action.WAIT),
        (an_attempt(cancel_seconds=60.0), RUNNING, Action.LOSE),
        (an_attempt(cancel_seconds=0.0, redeemed=False), PENDING, Action.LOSE),
    ],
)
def test_the_case_table(attempt: LiveAttempt, job: RayJob | None, action: Action):
    assert decide(attempt, job, cancel_grace_seconds=60) is action


def test_a_runnable_job_is_submitted_under_its_own_id(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    job = a_job(database, user="oidc:ana")

    dispatcher.tick()

    assert list(ray.jobs) == [f"test-{job}-1"]
    (dispatch,) = ray.submitted
    assert (dispatch.job, dispatch.kind, dispatch.user) == (job, JobKind.PROFILE, "oidc:ana")
    assert state_of(database, job) is JobState.RUNNING


def test_how_long_a_job_waited_for_its_claim_is_counted(
    dispatcher: Dispatcher, database: Database, registry: CollectorRegistry
):
    a_job(database)
    with database.writing.begin() as session:
        session.execute(update(JobRow).values(runnable_at=database_now(session) - timedelta(seconds=20)))

    dispatcher.tick()

    waits = [
        registry.get_sample_value("fasterseg_claim_wait_seconds_bucket", {"kind": "profile", "le": le})
        for le in ("10.0", "300.0")
    ]
    assert waits == [0, 1]


def test_no_more_jobs_run_than_the_bound(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    for _ in range(3):
        a_job(database)

    dispatcher.tick()
    dispatcher.tick()

    assert len(ray.jobs) == 2


def test_nothing_is_claimed_while_ray_is_away(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    job = a_job(database)
    ray.is_away = True
    dispatcher.run(stops_after(1), threading.Event(), seconds=0)

    assert state_of(database, job) is JobState.QUEUED

    ray.is_away = False
    dispatcher.tick()
    assert state_of(database, job) is JobState.RUNNING


def test_what_becomes_runnable_during_a_tick_is_looked_at_at_once(
    dispatcher: Dispatcher, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
):
    runnable, ticks = threading.Event(), []

    def list_while_a_job_is_submitted() -> dict[str, RayJob]:
        runnable.set()
        ticks.append("tick")
        return {}

    monkeypatch.setattr(ray, "list_jobs", list_while_a_job_is_submitted)
    dispatcher.run(stops_after(2), runnable, seconds=3600)

    assert len(ticks) == 2


def test_an_outage_is_logged_once(dispatcher: Dispatcher, ray: FakeRay, caplog: pytest.LogCaptureFixture):
    ray.is_away = True
    with caplog.at_level(logging.WARNING):
        dispatcher.run(stops_after(3), threading.Event(), seconds=0)

    assert [(record.message, record.error) for record in caplog.records] == [("tick failed", "Ray does not answer")]


def test_a_submission_that_ray_never_saw_is_repeated_with_a_new_ticket(
    dispatcher: Dispatcher, database: Database, ray: FakeRay
):
    a_job(database)
    ray.loses_submissions = True
    dispatcher.tick()
    ray.loses_submissions = False
    _age(database, seconds=31)

    dispatcher.tick()

    first, second = ray.submitted
    assert first.submission_id == second.submission_id
    assert first.ticket != second.ticket
    assert redeem(database, ray).assignment.epoch == 1


def test_a_job_that_ended_without_a_report_runs_again(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    ray.say(worker.submission_id, RayState.FAILED, "exit code 137")

    dispatcher.tick()

    assert state_of(database, job) is JobState.QUEUED
    with database.reading() as session:
        last = list_events(session, job, 0)[-1]
    assert last.kind == "requeued"
    assert "exit code 137" in str(last.data["message"])
    with database.writing.begin() as session:
        end_backoff(session)
    dispatcher.tick()
    assert f"test-{job}-2" in ray.jobs


def test_a_job_that_keeps_dying_fails(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    job = a_job(database)
    for epoch in range(1, 7):
        dispatcher.tick()
        ray.say(f"test-{job}-{epoch}", RayState.FAILED)
        dispatcher.tick()
        with database.writing.begin() as session:
            end_backoff(session)

    assert state_of(database, job) is JobState.FAILED


def test_a_silent_worker_is_replaced_and_stopped(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    be_steady(dispatcher, clock)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)

    dispatcher.tick()

    assert state_of(database, job) is JobState.QUEUED
    assert ray.stopped == [worker.submission_id]


def test_a_job_that_ray_forgot_is_replaced_once_its_lease_is_over(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    be_steady(dispatcher, clock)
    ray.jobs.clear()

    dispatcher.tick()
    assert state_of(database, job) is JobState.RUNNING

    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
    dispatcher.tick()
    assert state_of(database, job) is JobState.QUEUED


def test_no_lease_is_reaped_in_the_first_lease_length_of_a_start(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
    clock.now += LEASE_SECONDS / 4
    dispatcher.tick()

    assert state_of(database, job) is JobState.RUNNING


class ForgetfulRay(FakeRay):
    """Loses what it is handed, and then fails where it is handed it again."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def submit(self, dispatch: Dispatch) -> None:
        if dispatch.submission_id in (earlier.submission_id for earlier in self.submitted):
            raise self._error
        super().submit(dispatch)


def test_an_attempt_that_cannot_be_helped_keeps_nobody_waiting(parts: Parts, caplog: pytest.LogCaptureFixture):
    ray = ForgetfulRay(ValueError("odd"))
    dispatcher = a_dispatcher(replace(parts, ray=ray))
    ray.loses_submissions = True
    odd, dead = a_job(parts.database), a_job(parts.database)
    dispatcher.tick()
    ray.loses_submissions = False
    ray.say(f"test-{dead}-1", RayState.FAILED)
    ray.say("test-aaaaaaaaaaaa-1", RayState.RUNNING)
    new = a_job(parts.database)
    _age(parts.database, seconds=31)

    with caplog.at_level(logging.WARNING):
        dispatcher.tick()
        dispatcher.tick()

    assert [state_of(parts.database, job) for job in (odd, dead, new)] == ["running", "queued", "running"]
    assert ray.stopped == ["test-aaaaaaaaaaaa-1"]
    assert [record.error for record in caplog.records if record.message == "attempt was not settled"] == ["odd"]


def test_no_lease_is_reaped_after_ray_was_away_for_one_attempt(parts: Parts, clock: FakeClock):
    ray = ForgetfulRay(Unavailable("Ray does not answer"))
    dispatcher = a_dispatcher(replace(parts, ray=ray), clock=clock)
    job = a_job(parts.database)
    dispatcher.tick()
    worker = redeem(parts.database, ray)
    be_steady(dispatcher, clock)
    ray.loses_submissions = True
    a_job(parts.database)
    dispatcher.tick()
    _age(parts.database, seconds=31)
    dispatcher.run(stops_after(1), threading.Event(), seconds=0)
    with parts.database.writing.begin() as session:
        end_lease(session, worker.submission_id)

    dispatcher.run(stops_after(1), threading.Event(), seconds=0)

    assert state_of(parts.database, job) is JobState.RUNNING


def test_no_lease_is_reaped_after_a_pause_of_ours(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    be_steady(dispatcher, clock)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
    clock.now += 10 * LEASE_SECONDS  # the process was suspended

    dispatcher.tick()

    assert state_of(database, job) is JobState.RUNNING


def test_no_lease_is_reaped_after_the_machine_was_suspended(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    be_steady(dispatcher, clock)
    be_steady(dispatcher, clock)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
    clock.now -= LEASE_SECONDS  # by so much more the database's clock has gone on

    dispatcher.tick()

    assert state_of(database, job) is JobState.RUNNING


def test_a_job_that_ray_has_not_started_keeps_its_lease(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    be_steady(dispatcher, clock)
    with database.writing.begin() as session:
        end_lease(session, f"test-{job}-1")

    dispatcher.tick()
    dispatcher.tick()

    assert state_of(database, job) is JobState.RUNNING


def test_a_worker_that_has_just_succeeded_may_exit_by_itself(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))

    dispatcher.tick()

    assert ray.stopped == []


def test_a_worker_that_outlives_its_attempt_is_stopped(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))
    _age(database, seconds=31)

    dispatcher.tick()

    assert ray.stopped == [worker.submission_id]


def test_a_stranger_with_our_prefix_is_stopped_at_the_second_sighting(dispatcher: Dispatcher, ray: FakeRay):
    ray.say("test-aaaaaaaaaaaa-1", RayState.RUNNING)

    dispatcher.tick()
    assert ray.stopped == []

    dispatcher.tick()
    assert ray.stopped == ["test-aaaaaaaaaaaa-1"]


@pytest.mark.parametrize("name", ["raysubmit_abc", "other-aaaaaaaaaaaa-1", "test-longer-aaaaaaaaaaaa-1"])
def test_jobs_of_others_are_left_alone(dispatcher: Dispatcher, ray: FakeRay, name: str):
    ray.say(name, RayState.RUNNING)
    for _ in range(3):
        dispatcher.tick()

    assert ray.stopped == []


def test_a_worker_that_ignores_a_cancellation_is_stopped_after_the_grace(
    dispatcher: Dispatcher, database: Database, ray: FakeRay
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        request_cancel(session, job)
    dispatcher.tick()
    assert (state_of(database, job), ray.stopped) == (JobState.RUNNING, [])

    _age(database, seconds=61)
    dispatcher.tick()

    assert (state_of(database, job), ray.stopped) == (JobState.CANCELLED, [worker.submission_id])


def test_a_worker_that_is_to_pause_has_all_the_time_that_it_needs(
    dispatcher: Dispatcher, database: Database, ray: FakeRay
):
    job = a_job(database)
    dispatcher.tick()
    redeem(database, ray)
    with database.writing.begin() as session:
        request_pause(session, job)
    _age(database, seconds=3600)

    dispatcher.tick()

    assert (state_of(database, job), ray.stopped) == (JobState.RUNNING, [])


def test_a_job_past_its_deadline_is_asked_to_pause_and_never_killed(
    dispatcher: Dispatcher, database: Database, ray: FakeRay
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        pass_deadline(session, job)
    dispatcher.tick()
    _age(database, seconds=3600)

    dispatcher.tick()

    assert (state_of(database, job), ray.stopped) == (JobState.RUNNING, [])
    with database.writing.begin() as session:
        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        acknowledge_stop(session, worker.submission_id, worker.token)
    dispatcher.tick()
    assert (state_of(database, job), len(ray.submitted)) == (JobState.QUEUED, 1)


def test_a_silent_worker_past_its_deadline_is_replaced_by_nobody(
    dispatcher: Dispatcher, database: Database, ray: FakeRay, clock: FakeClock
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    be_steady(dispatcher, clock)
    with database.writing.begin() as session:
        pass_deadline(session, job)
        end_lease(session, worker.submission_id)
    dispatcher.tick()
    with database.writing.begin() as session:
        end_backoff(session)

    dispatcher.tick()

    assert (state_of(database, job), len(ray.submitted)) == (JobState.QUEUED, 1)
    with database.reading() as session:
        kinds = [event.kind for event in list_events(session, job, 0)]
    assert kinds == ["queued", "started", "pause_requested", "requeued"]


def test_limits_hold_while_ray_is_away(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    a_job(database, max_hours=1)
    dispatcher.tick()
    worker = redeem(database, ray)
    with database.writing.begin() as session:
        work_for(session, worker, hours=1)
    ray.is_away = True

    dispatcher.run(stops_after(1), threading.Event(), seconds=0)

    with database.writing.begin() as session:
        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop


def test_jobs_of_a_project_without_hours_stop_and_wait_until_it_has_more(
    dispatcher: Dispatcher, database: Database, ray: FakeRay
):
    job = a_job(database)
    dispatcher.tick()
    worker = redeem(database, ray)
    a_job(database)
    with database.writing.begin() as session:
        limit_project(session, FIRST_PROJECT, ProjectLimits(max_hours=0))
    ray.is_away = True
    dispatcher.run(stops_after(1), threading.Event(), seconds=0)
    ray.is_away = False
    with database.writing.begin() as session:
        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        acknowledge_stop(session, worker.submission_id, worker.token)
    ray.say(worker.submission_id, RayState.SUCCEEDED)

    dispatcher.tick()

    assert (state_of(database, job), len(ray.submitted)) == (JobState.QUEUED, 1)
    with database.writing.begin() as session:
        limit_project(session, FIRST_PROJECT, ProjectLimits(max_hours=None))
    dispatcher.tick()
    assert len(ray.submitted) == 3


def test_two_dispatchers_pause_a_job_once(dispatcher: Dispatcher, parts: Parts, database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        pass_deadline(session, job)
    other = a_dispatcher(parts)

    dispatcher.tick()
    other.tick()

    with database.reading() as session:
        assert [event.kind for event in list_events(session, job, 0)] == ["queued", "paused"]


def test_a_job_cancelled_before_its_worker_began_ends_at_once(dispatcher: Dispatcher, database: Database, ray: FakeRay):
    job = a_job(database)
    dispatcher.tick()
    with database.writing.begin() as session:
        request_cancel(session, job)

    dispatcher.tick()

    assert state_of(database, job) is JobState.CANCELLED


def _age(database: Database, *, seconds: float) -> None:
    """Lets everything in the rows have happened earlier, leases excepted."""
    ago = timedelta(seconds=seconds)
    with database.writing.begin() as session:
        for attempt in session.scalars(select(AttemptRow)):
            attempt.submitted_at -= ago
            if attempt.finished_at is not None:
                attempt.finished_at -= ago
        for job in session.scalars(select(JobRow)):
            job.cancel_requested_at = job.cancel_requested_at and job.cancel_requested_at - ago
            job.paused_at = job.paused_at and job.paused_at - ago
