"""What a worker may write, and that nothing is accepted once its attempt is over."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from services.client.attempt_schemas import AttemptSuccess, Heartbeat, WorkerEvent
from services.client.schemas import FailureClass, JobKind, JobState, Reason
from services.storage.attempts import (
    RETRIES,
    live_attempts,
    lose_attempt,
    open_attempt,
    reap_attempt,
    renew_ticket,
)
from services.storage.database import Database
from services.storage.errors import InvalidRequest, LeaseLost, NotAuthorized, NotFound
from services.storage.events import list_events
from services.storage.jobs import claim_job, find_job, request_cancel, request_pause, resume_job
from services.storage.tables import AttemptRow
from services.storage.views import show_job
from services.storage.worker_writes import (
    acknowledge_stop,
    add_checkpoint,
    authorize,
    authorized,
    fail,
    heartbeat,
    latest_checkpoints,
    redeem_ticket,
    report_events,
    succeed,
)
from tests.storage.builders import (
    BLOB,
    Worker,
    a_blob,
    a_checkpoint,
    a_job,
    a_progress,
    a_started_worker,
    a_success,
    an_architecture,
    an_artifact,
    end_backoff,
    end_lease,
)

USER_ERROR = Reason(failure=FailureClass.USER_ERROR, message="the data set is missing")


def test_a_ticket_is_redeemed_once(database: Database):
    a_job(database)
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None
        dispatch = open_attempt(session, job, "test")
        assignment = redeem_ticket(session, dispatch.submission_id, dispatch.ticket)
        assert (assignment.job, assignment.epoch) == (job.id, 1)

    with database.writing.begin() as session, pytest.raises(LeaseLost):
        redeem_ticket(session, dispatch.submission_id, dispatch.ticket)


def test_a_wrong_ticket_is_refused(database: Database):
    a_job(database)
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None
        dispatch = open_attempt(session, job, "test")

    with database.writing.begin() as session, pytest.raises(NotAuthorized):
        redeem_ticket(session, dispatch.submission_id, "another ticket")


def test_an_unknown_attempt_is_not_found(database: Database):
    with database.writing.begin() as session, pytest.raises(NotFound):
        redeem_ticket(session, "test-nobody-1", "any ticket")


@pytest.mark.parametrize("redeemed", [1, 2])
def test_of_the_last_two_tickets_that_works_whose_worker_ray_starts(database: Database, redeemed: int):
    a_job(database)
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None
        first = open_attempt(session, job, "test")
        name, given = first.submission_id, [first.ticket]
        for _ in range(2):
            renewed = renew_ticket(session, name, timedelta())
            assert renewed is not None
            given.append(renewed.ticket)

    with database.writing.begin() as session, pytest.raises(NotAuthorized):
        redeem_ticket(session, name, given[0])
    with database.writing.begin() as session:
        assert redeem_ticket(session, name, given[redeemed]).epoch == 1
        assert renew_ticket(session, name, timedelta()) is None
    for ticket in given[1:]:
        with database.writing.begin() as session, pytest.raises(LeaseLost):
            redeem_ticket(session, name, ticket)


def test_one_of_two_replicas_renews_a_ticket(database: Database):
    a_job(database)
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None
        attempt = open_attempt(session, job, "test").submission_id
        session.get_one(AttemptRow, attempt).submitted_at -= timedelta(seconds=31)

    with database.writing.begin() as session:
        assert renew_ticket(session, attempt, timedelta(seconds=30)) is not None
    with database.writing.begin() as session:
        assert renew_ticket(session, attempt, timedelta(seconds=30)) is None


def test_a_heartbeat_extends_the_lease_and_notes_progress(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)

    with database.writing.begin() as session:
        status = heartbeat(session, worker.submission_id, worker.token, Heartbeat(progress=a_progress(epoch=3)))

    assert not status.stop
    with database.reading() as session:
        assert live_attempts(session)[0].lease_seconds > 50
        assert show_job(session, find_job(session, job)).progress == a_progress(epoch=3)


def test_a_heartbeat_tells_the_worker_of_a_request_to_cancel(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_cancel(session, job)
        assert heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop


def test_events_delivered_twice_are_written_once(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    first, second = (WorkerEvent(worker_sequence=i, kind="epoch", data={"epoch": i}) for i in range(2))
    for batch in ([first], [first, second]):
        with database.writing.begin() as session:
            report_events(session, worker.submission_id, worker.token, batch)

    with database.reading() as session:
        events = [event for event in list_events(session, job, 0) if event.kind == "epoch"]
    assert [event.data for event in events] == [{"epoch": 0}, {"epoch": 1}]
    assert [event.epoch for event in events] == [1, 1]


def test_a_worker_cannot_write_the_services_events(database: Database):
    a_job(database)
    worker = a_started_worker(database)
    forged = WorkerEvent(worker_sequence=0, kind="succeeded", data={})
    with database.writing.begin() as session, pytest.raises(InvalidRequest, match="by the service alone"):
        report_events(session, worker.submission_id, worker.token, [forged])


def keep_checkpoints(database: Database, worker: Worker, *bodies: bytes) -> None:
    with database.writing.begin() as session:
        for body in bodies:
            a_blob(session, body)
            add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(body))


def test_the_next_attempt_is_given_the_last_three_checkpoints_newest_first(database: Database):
    a_job(database)
    worker = a_started_worker(database)
    keep_checkpoints(database, worker, b"first", b"second", b"third", b"fourth")
    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed")
        end_backoff(session)

    assert worker.assignment.checkpoints == []
    successor = a_started_worker(database).assignment
    assert successor.epoch == 2
    assert successor.checkpoints == [a_checkpoint(body) for body in (b"fourth", b"third", b"second")]


def test_the_last_three_checkpoints_are_those_of_all_attempts(database: Database):
    a_job(database)
    worker = a_started_worker(database)
    keep_checkpoints(database, worker, b"first", b"second")
    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed")
        end_backoff(session)
    worker = a_started_worker(database)
    keep_checkpoints(database, worker, b"third", b"second")
    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed again")
        end_backoff(session)

    successor = a_started_worker(database).assignment
    assert successor.checkpoints == [a_checkpoint(body) for body in (b"second", b"third", b"second")]


def test_a_job_keeps_its_checkpoints_only(database: Database):
    a_job(database)
    other = a_job(database)
    first, second = a_started_worker(database), a_started_worker(database)
    keep_checkpoints(database, second, b"state of the other")
    keep_checkpoints(database, first, *(f"state {number}".encode() for number in range(4)))

    with database.reading() as session:
        assert latest_checkpoints(session, other) == [a_checkpoint(b"state of the other")]


@pytest.mark.parametrize("failure", list(FailureClass))
def test_a_failed_attempt_leaves_its_checkpoints(database: Database, failure: FailureClass):
    """A search that diverged, for one, fails for good: its last good state stays."""
    job = a_job(database)
    worker = a_started_worker(database)
    keep_checkpoints(database, worker, b"good", b"better")
    with database.writing.begin() as session:
        fail(session, worker.submission_id, worker.token, Reason(failure=failure, message="the loss is not finite"))

    with database.reading() as session:
        assert latest_checkpoints(session, job) == [a_checkpoint(b"better"), a_checkpoint(b"good")]


def test_a_checkpoint_delivered_twice_is_written_once(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session, b"state")
        for _ in range(2):
            add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(b"state"))

    with database.reading() as session:
        assert [event.kind for event in list_events(session, job, 2)] == ["checkpoint"]


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 1}], ids=["not uploaded", "another size"])
def test_a_checkpoint_needs_its_blob(database: Database, wrong: dict[str, object]):
    a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
    checkpoint = a_checkpoint(BLOB).model_copy(update=wrong)
    with database.writing.begin() as session, pytest.raises(InvalidRequest):
        add_checkpoint(session, worker.submission_id, worker.token, checkpoint)


def test_success_shows_everything_that_the_job_made(database: Database):
    job = a_job(database, JobKind.SEARCH)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        success = a_success(JobKind.SEARCH).model_copy(
            update={"artifacts": [an_artifact("curves.png")], "result": {"seconds": 1.5}}
        )
        succeed(session, worker.submission_id, worker.token, success)

    with database.reading() as session:
        shown = show_job(session, find_job(session, job))
    assert shown.state is JobState.SUCCEEDED
    assert shown.architectures == {"student": an_architecture(4).digest, "teacher": an_architecture(8).digest}
    assert shown.artifacts == [an_artifact("curves.png")]
    assert shown.result == {"seconds": 1.5}


def test_two_jobs_may_make_the_same_documents(database: Database):
    for _ in range(2):
        a_job(database, JobKind.SEARCH)
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            succeed(session, worker.submission_id, worker.token, a_success(JobKind.SEARCH))


@pytest.mark.parametrize(
    ("kind", "field"),
    [(JobKind.PROFILE, "latency_table"), (JobKind.SEARCH, "architectures"), (JobKind.RETRAIN, "artifacts")],
)
def test_success_without_the_kinds_product_is_refused(database: Database, kind: JobKind, field: str):
    a_job(database, kind)
    worker = a_started_worker(database)
    with database.writing.begin() as session, pytest.raises(InvalidRequest) as refusal:
        succeed(session, worker.submission_id, worker.token, AttemptSuccess(result={}))

    assert [invalid.field for invalid in refusal.value.fields] == [field]


def test_a_refused_success_leaves_nothing_behind(database: Database):
    job = a_job(database, JobKind.SEARCH)
    worker = a_started_worker(database)
    broken = a_success(JobKind.SEARCH).model_copy(
        update={"architectures": a_success(JobKind.SEARCH).architectures | {"teacher": {"stem_ratio": 8}}}
    )
    with pytest.raises(InvalidRequest, match=r"architectures.teacher"), database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, broken)

    with database.reading() as session:
        assert show_job(session, find_job(session, job)).architectures == {}


@pytest.mark.parametrize("failure", list(FailureClass))
def test_each_class_of_failure_has_its_own_budget(database: Database, failure: FailureClass):
    job = a_job(database)
    reason = Reason(failure=failure, message="again")
    for _ in range(RETRIES[failure]):
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            fail(session, worker.submission_id, worker.token, reason)
            assert find_job(session, job).state is JobState.QUEUED
            assert claim_job(session) is None, "the back-off has begun"
            end_backoff(session)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        fail(session, worker.submission_id, worker.token, reason)

    with database.reading() as session:
        shown = show_job(session, find_job(session, job))
    assert (shown.state, shown.reason, shown.epoch) == (JobState.FAILED, reason, RETRIES[failure] + 1)


def test_a_job_that_gets_further_has_its_whole_budget_again(database: Database):
    job = a_job(database)
    reason = Reason(failure=FailureClass.OUT_OF_MEMORY, message="again")

    def ended(body: bytes | None) -> JobState:
        """What a job is after an attempt that made a checkpoint, or none, and failed."""
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            if body is not None:
                a_blob(session, body)
                add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(body))
            fail(session, worker.submission_id, worker.token, reason)
            end_backoff(session)
            return find_job(session, job).state

    bodies = [b"first", b"second", b"third", None]
    assert [ended(body) for body in bodies] == [JobState.QUEUED] * 3 + [JobState.FAILED]


def test_failing_after_a_request_to_cancel_cancels(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_cancel(session, job)
        fail(session, worker.submission_id, worker.token, Reason(failure=FailureClass.INFRASTRUCTURE, message=""))
        assert find_job(session, job).state is JobState.CANCELLED


def test_a_worker_acknowledges_a_request_to_cancel(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_cancel(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)
        assert find_job(session, job).state is JobState.CANCELLED


def test_a_worker_that_pauses_leaves_a_job_that_goes_on_once_it_is_resumed(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        assert not heartbeat(session, worker.submission_id, worker.token, Heartbeat()).stop
        request_pause(session, job)
        assert add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(BLOB)).stop
        acknowledge_stop(session, worker.submission_id, worker.token)
        assert find_job(session, job).state is JobState.QUEUED
        assert claim_job(session) is None
        resume_job(session, job)

    following = a_started_worker(database)

    assert following.assignment.epoch == 2
    assert following.assignment.checkpoints == [a_checkpoint(BLOB)]
    with database.reading() as session:
        kinds = [event.kind for event in list_events(session, job, 0)]
    assert kinds == ["queued", "started", "pause_requested", "checkpoint", "paused", "resumed", "started"]


def test_a_worker_that_stops_after_the_job_was_resumed_leaves_it_queued(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        resume_job(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)
        end_backoff(session)

    assert a_started_worker(database).assignment.epoch == 2


def test_a_worker_that_stops_again_and_again_unasked_fails_its_job(database: Database):
    job = a_job(database)
    for _ in range(RETRIES[FailureClass.INFRASTRUCTURE] + 1):
        worker = a_started_worker(database)
        with database.writing.begin() as session:
            acknowledge_stop(session, worker.submission_id, worker.token)
            end_backoff(session)

    with database.reading() as session:
        assert find_job(session, job).state is JobState.FAILED


def test_a_worker_lost_while_it_was_to_pause_leaves_a_job_that_waits(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        lose_attempt(session, worker.submission_id, "killed")
        end_backoff(session)
        assert find_job(session, job).state is JobState.QUEUED
        assert claim_job(session) is None


def test_a_failure_of_a_job_that_was_to_pause_counts(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        fail(session, worker.submission_id, worker.token, USER_ERROR)
        assert find_job(session, job).state is JobState.FAILED


def test_a_job_that_is_cancelled_while_it_pauses_is_cancelled(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        request_pause(session, job)
        request_cancel(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)
        assert find_job(session, job).state is JobState.CANCELLED


def test_an_expired_lease_is_reaped(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
        reap_attempt(session, worker.submission_id, "silent")
        assert find_job(session, job).state is JobState.QUEUED


def test_a_lease_renewed_meanwhile_is_not_reaped(database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        reap_attempt(session, worker.submission_id, "silent")
        assert find_job(session, job).state is JobState.RUNNING


WRITES: dict[str, Callable[[Session, Worker], object]] = {
    "heartbeat": lambda session, worker: heartbeat(session, worker.submission_id, worker.token, Heartbeat()),
    "events": lambda session, worker: report_events(session, worker.submission_id, worker.token, []),
    "checkpoint": lambda session, worker: add_checkpoint(
        session, worker.submission_id, worker.token, a_checkpoint(BLOB)
    ),
    "succeed": lambda session, worker: succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE)),
    "fail": lambda session, worker: fail(session, worker.submission_id, worker.token, USER_ERROR),
    "stopped": lambda session, worker: acknowledge_stop(session, worker.submission_id, worker.token),
    "authorize": lambda session, worker: authorize(session, worker.token),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_an_old_attempt_writes_nothing(database: Database, write: Callable[[Session, Worker], object]):
    a_job(database)
    old = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        lose_attempt(session, old.submission_id, "silent")
        end_backoff(session)
    a_started_worker(database)

    with database.writing.begin() as session, pytest.raises(LeaseLost):
        write(session, old)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_another_attempts_token_is_refused(database: Database, write: Callable[[Session, Worker], object]):
    a_job(database)
    worker = a_started_worker(database)
    forged = Worker(worker.submission_id, "x" * 32, worker.assignment)

    with database.writing.begin() as session, pytest.raises(NotAuthorized):
        write(session, forged)


def test_tokens_are_authorized_while_their_attempts_live(database: Database):
    for _ in range(2):
        a_job(database)
    live, over = a_started_worker(database), a_started_worker(database)

    with database.writing.begin() as session:
        lose_attempt(session, over.submission_id, "silent")
        assert authorized(session, [live.token, over.token, "nobody's"]) == {live.token}
