import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.client.attempt import TIMEOUT_SECONDS, AttemptClient, redeem
from services.client.attempt_schemas import AttemptFailure, AttemptSuccess, CheckpointRef
from services.client.errors import CorruptArtifactError, LeaseLost, ProblemError, StoreError, UnreachableError
from services.client.schemas import FailureClass, Problem, Reason
from tests.client.fake_control_plane import (
    ARCHITECTURE_DOCUMENT,
    ARCHITECTURE_ID,
    SUBMISSION_ID,
    TABLE_DOCUMENT,
    TABLE_ID,
    TICKET,
    TOKEN,
    Answer,
    FakeControlPlane,
    a_progress,
    an_assignment,
    link_to,
    problem_answer,
    sha256,
)

ROUTE = f"/attempts/{SUBMISSION_ID}"
REASON = Reason(failure=FailureClass.USER_ERROR, message="no such data set")


def a_file(folder: Path, data: bytes) -> Path:
    """A file that is written anew for each checkpoint, as a worker does."""
    path = folder / "state"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


def an_attempt(
    plane: FakeControlPlane, heartbeat_seconds: float = 0.05, outage_seconds: float = 60.0, first_event: int = 0
) -> AttemptClient:
    return AttemptClient(
        plane.url,
        SUBMISSION_ID,
        token=TOKEN,
        heartbeat_seconds=heartbeat_seconds,
        outage_seconds=outage_seconds,
        first_event=first_event,
    )


@pytest.fixture
def attempt(plane: FakeControlPlane) -> Iterator[AttemptClient]:
    with an_attempt(plane) as attempt:
        yield attempt


def test_a_ticket_is_redeemed_for_an_assignment_and_a_client(plane: FakeControlPlane) -> None:
    assignment, attempt = redeem(plane.url, SUBMISSION_ID, TICKET)

    with attempt:
        attempt.stopped()

    assert assignment == an_assignment()
    assert plane.end == "stopped"


def test_a_spent_ticket_gives_no_lease(plane: FakeControlPlane) -> None:
    plane.lease_lost = True

    with pytest.raises(LeaseLost):
        redeem(plane.url, SUBMISSION_ID, TICKET)


def test_heartbeats_bring_the_request_to_cancel(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    plane.wait_until(lambda: len(plane.heartbeats) >= 2)
    assert not attempt.should_stop

    plane.cancel_requested = True

    plane.wait_until(lambda: attempt.should_stop)


def test_the_latest_progress_is_sent_long_before_a_heartbeat_is_due(plane: FakeControlPlane) -> None:
    with an_attempt(plane, heartbeat_seconds=3600.0) as attempt:
        attempt.progress(a_progress(step=1))
        attempt.progress(a_progress(step=2, loss=math.nan))

        plane.wait_until(lambda: plane.heartbeats[-1:] == [a_progress(step=2, loss=None)])


def test_heartbeats_say_what_the_worker_holds(plane: FakeControlPlane) -> None:
    with AttemptClient(plane.url, SUBMISSION_ID, token=TOKEN, heartbeat_seconds=0.05, devices=2):
        plane.wait_until(lambda: plane.devices == 2)


def test_requests_name_the_span_that_they_belong_to() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=an_assignment().model_dump_json())

    _, attempt = redeem(
        "http://test", SUBMISSION_ID, TICKET, traceparent="00-a-b-01", transport=httpx.MockTransport(answer)
    )
    with attempt:
        attempt.stopped()

    assert {request.headers.get("traceparent") for request in asked} == {"00-a-b-01"}
    assert len(asked) >= 2


def test_events_arrive_once_and_in_order_through_an_outage(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    plane.away = True
    for number in range(1500):  # more than one batch
        attempt.event("epoch", {"number": number})
    plane.wait_until(lambda: plane.turned_away >= 3)
    plane.lost_replies = 3
    plane.away = False
    attempt.event("epoch", {"number": 1500})

    attempt.succeed(AttemptSuccess(result={}))

    assert [event.data["number"] for event in plane.worker_events.values()] == list(range(1501))
    assert list(plane.worker_events) == list(range(1501))


def test_events_of_a_client_that_follows_another_arrive_beside_that_ones(plane: FakeControlPlane) -> None:
    with an_attempt(plane) as first:
        first.event("warning", {})
        plane.wait_until(lambda: plane.worker_events)

    with an_attempt(plane, first_event=first.next_event) as second:
        second.event("epoch", {})
        second.succeed(AttemptSuccess(result={}))

    assert [event.kind for event in plane.worker_events.values()] == ["warning", "epoch"]


def test_a_checkpoint_is_stored_before_it_is_named(
    plane: FakeControlPlane, attempt: AttemptClient, tmp_path: Path
) -> None:
    attempt.checkpoint(a_file(tmp_path, b"state"), a_progress())
    plane.wait_until(lambda: plane.checkpoints)

    (checkpoint,) = plane.checkpoints
    assert (checkpoint.sha256, checkpoint.size, checkpoint.progress) == (sha256(b"state"), 5, a_progress())
    assert plane.artifacts[checkpoint.sha256] == b"state"
    kept = [request for request in plane.requests if not request.endswith("heartbeat")]
    assert kept == [f"PUT /blobs/{checkpoint.sha256}", f"POST {ROUTE}/checkpoint"]


def test_the_newest_of_the_checkpoints_that_wait_is_delivered(plane: FakeControlPlane, tmp_path: Path) -> None:
    with an_attempt(plane, heartbeat_seconds=3600.0) as attempt:
        plane.away = True
        for number in range(5):
            attempt.checkpoint(a_file(tmp_path, f"state {number}".encode()), a_progress(step=number))
        plane.away = False
        attempt.stopped()

    assert plane.checkpoints[-1].sha256 == sha256(b"state 4")
    assert len(plane.checkpoints) <= 2  # one may have been on its way


def test_a_lost_lease_silences_the_worker(plane: FakeControlPlane, attempt: AttemptClient, tmp_path: Path) -> None:
    plane.lease_lost = True
    plane.wait_until(lambda: attempt.should_stop)
    answered = len(plane.requests)

    for write in (
        lambda: attempt.progress(a_progress()),
        lambda: attempt.event("epoch", {}),
        lambda: attempt.checkpoint(a_file(tmp_path, b"state"), a_progress()),
        lambda: attempt.upload(b"weights"),
        lambda: attempt.succeed(AttemptSuccess(result={})),
        lambda: attempt.fail(REASON),
        attempt.stopped,
    ):
        with pytest.raises(LeaseLost, match="the lease of this attempt was lost"):
            write()

    assert len(plane.requests) == answered


def test_a_lease_lost_while_writing_is_raised_to_the_writer(plane: FakeControlPlane) -> None:
    with an_attempt(plane, heartbeat_seconds=3600.0) as attempt:
        plane.lease_lost = True

        with pytest.raises(LeaseLost):
            attempt.succeed(AttemptSuccess(result={}))


def test_success_comes_after_what_was_spooled_and_is_the_last_word(plane: FakeControlPlane, tmp_path: Path) -> None:
    with an_attempt(plane) as attempt:
        attempt.event("epoch", {})
        attempt.checkpoint(a_file(tmp_path, b"state"), a_progress())
        attempt.succeed(AttemptSuccess(result={"miou": 0.5}))

    writes = [request.removeprefix(f"POST {ROUTE}/") for request in plane.requests if "attempts" in request]
    assert [write for write in writes if write != "heartbeat"] == ["events", "checkpoint", "succeed"]
    assert AttemptSuccess.model_validate_json(plane.end_body).result == {"miou": 0.5}


def test_failure_is_told_with_its_reason(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    attempt.fail(REASON)

    assert plane.end == "fail"
    assert AttemptFailure.model_validate_json(plane.end_body).reason == REASON


def test_a_refused_checkpoint_is_raised_and_can_be_reported(
    plane: FakeControlPlane, attempt: AttemptClient, tmp_path: Path
) -> None:
    too_large = Problem(title="Content Too Large", status=413, detail="at most 3 bytes")
    plane.refusals[f"PUT /blobs/{sha256(b'state')}"] = problem_answer(too_large)
    attempt.checkpoint(a_file(tmp_path, b"state"), a_progress())

    with pytest.raises(ProblemError, match="at most 3 bytes"):
        attempt.succeed(AttemptSuccess(result={}))
    attempt.fail(REASON)

    assert plane.end == "fail"


def test_a_failure_is_told_although_the_last_checkpoint_was_refused(
    plane: FakeControlPlane, attempt: AttemptClient, tmp_path: Path
) -> None:
    plane.refusals[f"POST {ROUTE}/checkpoint"] = problem_answer(Problem(title="Bad", status=422, detail="no such blob"))
    attempt.checkpoint(a_file(tmp_path, b"state"), a_progress())

    attempt.fail(REASON)

    assert plane.end == "fail"


def test_an_attempt_that_is_cut_off_for_too_long_ends_itself(plane: FakeControlPlane) -> None:
    plane.away = True

    with an_attempt(plane, outage_seconds=0.05) as attempt:
        plane.wait_until(lambda: attempt.should_stop)

        with pytest.raises(UnreachableError, match=plane.url):
            attempt.event("epoch", {})


def test_what_is_uploaded_can_be_downloaded(attempt: AttemptClient) -> None:
    digest, size = attempt.upload(b"weights")

    assert size == 7
    assert attempt.download(digest) == b"weights"


def test_a_corrupted_blob_is_refused(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    digest, _ = attempt.upload(b"weights")
    plane.artifacts[digest] = b"weightz"

    with pytest.raises(CorruptArtifactError):
        attempt.download(digest)


def the_checkpoint(data: bytes) -> CheckpointRef:
    return CheckpointRef(sha256=sha256(data), size=len(data), progress=a_progress())


def test_a_large_checkpoint_is_sent_again_whole_after_a_lost_reply(
    plane: FakeControlPlane, attempt: AttemptClient, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 4096 * 3 + b"end"
    plane.lost_replies = 2

    attempt.checkpoint(a_file(tmp_path, data), a_progress())
    (tmp_path / "state").unlink()

    plane.wait_until(lambda: plane.checkpoints)
    assert plane.artifacts[sha256(data)] == data


def test_a_checkpoint_is_read_from_a_file(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    data = bytes(range(256)) * 4096 * 3 + b"end"
    plane.artifacts[sha256(data)] = data
    plane.lost_replies = 1

    with attempt.checkpoint_file(the_checkpoint(data)) as file:
        assert file.read() == data


def test_a_corrupted_checkpoint_is_refused(plane: FakeControlPlane, attempt: AttemptClient) -> None:
    plane.artifacts[sha256(b"state")] = b"stale"

    with pytest.raises(CorruptArtifactError), attempt.checkpoint_file(the_checkpoint(b"state")):
        pass


def test_a_checkpoint_is_waited_for_as_long_as_a_slow_store_takes() -> None:
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waited.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, content=b"state")

    large = the_checkpoint(b"state").model_copy(update={"size": 2_000_000_000})
    attempt = AttemptClient(
        "http://plane", SUBMISSION_ID, token=TOKEN, heartbeat_seconds=60, transport=httpx.MockTransport(answer)
    )

    with attempt, attempt.checkpoint_file(large):
        pass

    assert min(waited) > 2_000  # a megabyte a second


def test_a_service_that_is_gone_is_noticed_however_large_a_blob_is() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=b"state")

    attempt = AttemptClient(
        "http://plane", SUBMISSION_ID, token=TOKEN, heartbeat_seconds=60, transport=httpx.MockTransport(answer)
    )
    with attempt, attempt.checkpoint_file(the_checkpoint(b"state").model_copy(update={"size": 2_000_000_000})):
        attempt.upload(bytes(10_000_000))

    assert [request.method for request in asked] == ["GET", "PUT"]
    for timeout in (request.extensions["timeout"] for request in asked):
        assert timeout["read"] > TIMEOUT_SECONDS, "the service answers once its store has done its part"
        assert (timeout["connect"], timeout["write"]) == (TIMEOUT_SECONDS, TIMEOUT_SECONDS)


def test_a_checkpoint_that_the_store_has_lost_is_not_waited_for(
    plane: FakeControlPlane, attempt: AttemptClient
) -> None:
    gone = Problem(title="Corrupt blob", status=410, detail="the store has other bytes")
    plane.refusals[f"GET /artifacts/{sha256(b'state')}"] = problem_answer(gone)

    with pytest.raises(ProblemError, match="410 Corrupt blob"), attempt.checkpoint_file(the_checkpoint(b"state")):
        pass


def test_blobs_are_read_from_a_store_that_the_service_links_to_which_is_shown_no_token(
    plane: FakeControlPlane, store: FakeControlPlane, attempt: AttemptClient
) -> None:
    for data in (b"weights", b"state"):
        plane.refusals[f"GET /artifacts/{sha256(data)}"] = link_to(store, data)

    assert attempt.download(sha256(b"weights")) == b"weights"
    with attempt.checkpoint_file(the_checkpoint(b"state")) as file:
        assert file.read() == b"state"
    assert store.shown == [None, None]


def test_a_refusal_of_the_store_does_not_lose_the_lease(
    plane: FakeControlPlane, store: FakeControlPlane, attempt: AttemptClient
) -> None:
    digest = sha256(b"weights")
    plane.refusals[f"GET /artifacts/{digest}"] = link_to(store, b"weights")
    store.refusals[f"GET /artifacts/{digest}"] = Answer(409)

    with pytest.raises(StoreError, match="409"):
        attempt.download(digest)
    attempt.fail(REASON)

    assert plane.end == "fail"


def test_documents_are_read(attempt: AttemptClient) -> None:
    assert attempt.latency_table(TABLE_ID) == TABLE_DOCUMENT
    assert attempt.architecture(ARCHITECTURE_ID) == ARCHITECTURE_DOCUMENT
