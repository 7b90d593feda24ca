from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from fasterseg_core.checkpoint import CheckpointError, CheckpointKind, pack
from services.client.attempt_schemas import CheckpointRef
from services.client.errors import CorruptArtifactError, ProblemError, StoreError
from services.client.schemas import FailureClass, Problem
from services.workers.checkpoints import SECONDS_WITHIN_EPOCH, Rhythm, resume
from services.workers.execution import reason_for
from tests.clock import FakeClock
from tests.workers.fakes import SEARCH, FakeAttempt, a_progress

# ---- how often ----


def seconds_kept(seconds: int, step_seconds: float, cost: Callable[[int], float]) -> list[float]:
    """When each checkpoint ended, where every step may have one; `cost` says how long the nth one takes."""
    clock, ends = FakeClock(), []
    rhythm = Rhythm(clock)
    while clock.now < seconds:
        clock.now += step_seconds
        if rhythm.is_due(epoch_ended=True):
            with rhythm.keeping():
                clock.now += cost(len(ends))
            ends.append(clock.now)
    return ends


@pytest.mark.parametrize("cost", [0.01, 1.0, 6.0, 60.0])
@pytest.mark.parametrize("step_seconds", [0.1, 14.0])
def test_checkpoints_take_less_than_two_percent_of_the_time(cost: float, step_seconds: float):
    ends = seconds_kept(40_000, step_seconds, lambda _: cost)

    assert (len(ends) - 1) * cost / (ends[-1] - ends[0]) < 0.02
    assert ends[1] - ends[0] < 51 * cost + step_seconds + 1e-6  # and no less often than they may


def test_a_slower_checkpoint_is_followed_by_a_longer_pause():
    ends = seconds_kept(200, 1.0, lambda number: 2.0 if number == 1 else 0.5)

    assert [after - before for before, after in pairwise(ends)] == [27.0, 100.5, 25.5, 25.5]


def test_the_first_step_is_kept_because_it_shows_what_keeping_costs():
    assert seconds_kept(1, 1.0, lambda _: 3.0) == [4.0]


def test_within_an_epoch_checkpoints_keep_a_distance_that_its_end_does_not():
    clock = FakeClock()
    rhythm = Rhythm(clock)
    with rhythm.keeping():
        clock.now += 0.01

    clock.now += 1.0

    assert not rhythm.is_due(epoch_ended=False)
    assert rhythm.is_due(epoch_ended=True)
    clock.now += SECONDS_WITHIN_EPOCH
    assert rhythm.is_due(epoch_ended=False)


# ---- going on ----


def a_reference(name: str) -> CheckpointRef:
    return CheckpointRef(sha256=name * 64, size=1, progress=a_progress())


def a_refusal(status: int) -> ProblemError:
    return ProblemError(Problem(title="Refused", status=status, detail="no such blob"))


def a_checkpoint(epoch: int) -> bytes:
    return pack({"epoch": epoch, "best": None, "weights": {"w": torch.ones(2)}}, SEARCH)


def loaded(attempt: FakeAttempt, *names: str) -> list[object]:
    """The epochs of the states that resuming from these checkpoints loads."""
    epochs: list[object] = []
    progress = resume(
        lambda state: epochs.append(state["epoch"]), SEARCH, [a_reference(name) for name in names], attempt
    )
    assert (progress is not None) == bool(epochs)
    return epochs


def test_a_job_without_checkpoints_begins():
    assert loaded(FakeAttempt()) == []


def test_the_newest_checkpoint_is_loaded():
    attempt = FakeAttempt(blobs={"a" * 64: a_checkpoint(2), "b" * 64: a_checkpoint(1)})

    assert loaded(attempt, "a", "b") == [2]
    assert attempt.events == []


@pytest.mark.parametrize(
    ("unreadable", "reason"),
    [
        (a_checkpoint(2)[:-1], "truncated or damaged"),
        (b"something else", "not a FasterSeg checkpoint"),
        (pack({}, CheckpointKind.RETRAINING), "a checkpoint of a retraining, not of a search"),
        (CorruptArtifactError("a" * 64, "c" * 64), "arrived with sha256 c"),
        (a_refusal(404), "404 Refused"),
        (a_refusal(410), "410 Refused"),
        (StoreError("https://store.test", "404 NoSuchKey", "NoSuchKey"), "404 NoSuchKey"),
    ],
    ids=["truncated", "foreign", "another kind", "corrupt", "lost", "damaged in the store", "lost by S3"],
)
def test_where_the_newest_cannot_be_read_the_one_before_serves_and_an_event_says_so(
    unreadable: bytes | Exception, reason: str
):
    attempt = FakeAttempt(blobs={"a" * 64: unreadable, "b" * 64: a_checkpoint(1)})

    assert loaded(attempt, "a", "b") == [1]
    ((kind, data),) = attempt.events
    assert (kind, data["sha256"]) == ("checkpoint_unreadable", "a" * 64)
    assert reason in str(data["reason"])


def test_where_none_can_be_read_the_job_fails_instead_of_beginning_anew():
    attempt = FakeAttempt(blobs={"a" * 64: a_checkpoint(2)[:-1], "b" * 64: a_refusal(404)})

    with pytest.raises(CheckpointError, match="none of this job's 2 checkpoints can be read") as failure:
        loaded(attempt, "a", "b")

    assert len(attempt.events) == 2
    assert reason_for(failure.value).failure is FailureClass.USER_ERROR  # trying again would end the same


@pytest.mark.parametrize(
    "error",
    [
        a_refusal(503),
        StoreError("https://store.test", "403 AccessDenied", "AccessDenied"),
        StoreError("https://store.test", "404 Not Found"),
    ],
    ids=["of the service", "that refuses a link", "that a link leads to"],
)
def test_a_store_that_is_away_does_not_make_a_checkpoint_unreadable(error: Exception):
    attempt = FakeAttempt(blobs={"a" * 64: error, "b" * 64: a_checkpoint(1)})

    with pytest.raises(type(error)):
        loaded(attempt, "a", "b")

    assert attempt.events == []


def test_a_state_that_does_not_fit_the_job_is_no_unreadable_checkpoint():
    def refuse(_: object) -> None:
        raise ValueError("the checkpoint was made with another split of the training images")

    attempt = FakeAttempt(blobs={"a" * 64: a_checkpoint(2), "b" * 64: a_checkpoint(1)})

    with pytest.raises(ValueError, match="another split"):
        resume(refuse, SEARCH, [a_reference("a"), a_reference("b")], attempt)

    assert attempt.events == []
