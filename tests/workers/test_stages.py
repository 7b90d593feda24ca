"""How an attempt is divided into spans."""

from collections.abc import Mapping

import pytest

from services.client.schemas import FailureClass
from services.workers.stages import Stages
from tests.clock import FakeClock
from tests.workers.fakes import a_progress

Told = tuple[str, int, int, str | None]  # name, begun, ended, failure


class FakeTraces:
    """Keeps the spans that are told to it."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.fields: list[Mapping[str, object]] = []
        self.parents: set[str | None] = set()

    def past(
        self,
        name: str,
        parent: str | None,
        fields: Mapping[str, object],
        *,
        begun: int,
        ended: int,
        failure: str | None,
    ) -> None:
        self.told.append((name, begun, ended, failure))
        self.fields.append(fields)
        self.parents.add(parent)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def traces() -> FakeTraces:
    return FakeTraces()


@pytest.fixture
def stages(traces: FakeTraces, clock: FakeClock) -> Stages:
    return Stages(traces, "the attempt's", {"job": "a"}, clock)  # type: ignore[arg-type]


def step(stages: Stages, clock: FakeClock, after: int, phase: str, epoch: int, steps: int = 4) -> None:
    clock.now += after
    stages.step(a_progress(phase=phase, epoch=epoch, step=1, steps=steps))


def mark(stages: Stages, clock: FakeClock, after: int) -> None:
    clock.now += after
    stages.mark()


def end(stages: Stages, clock: FakeClock, after: int, failure: FailureClass | None = None) -> None:
    clock.now += after
    stages.end(failure)


def test_stages_follow_each_other_from_the_set_up_to_the_finish(stages: Stages, clock: FakeClock, traces: FakeTraces):
    step(stages, clock, 30, "pretrain", 1)  # the first step belongs to the set-up
    step(stages, clock, 2, "pretrain", 1)
    step(stages, clock, 2, "search", 1)
    mark(stages, clock, 5)  # its evaluation
    step(stages, clock, 3, "search", 2)
    end(stages, clock, 10)

    assert traces.told == [
        ("set up", 0, 30, None),
        ("pretrain epoch 1", 30, 32, None),
        ("search epoch 1", 32, 39, None),
        ("search epoch 2", 39, 42, None),
        ("finish", 42, 52, None),
    ]
    assert traces.fields[1] == {"job": "a", "phase": "pretrain", "epoch": 1}
    assert traces.parents == {"the attempt's"}


def test_a_phase_without_epochs_is_one_stage(stages: Stages, clock: FakeClock, traces: FakeTraces):
    for _ in range(3):
        step(stages, clock, 1, "measure operators", 0)
    end(stages, clock, 1)

    assert [name for name, *_ in traces.told] == ["set up", "measure operators", "finish"]
    assert traces.fields[1] == {"job": "a", "phase": "measure operators"}


def test_waiting_for_others_is_a_stage_that_begins_when_it_is_told(
    stages: Stages, clock: FakeClock, traces: FakeTraces
):
    step(stages, clock, 5, "waiting", 0, steps=0)
    step(stages, clock, 60, "waiting", 0, steps=0)
    step(stages, clock, 7, "measure", 0)
    end(stages, clock, 1)

    assert traces.told[:3] == [("set up", 0, 5, None), ("waiting", 5, 65, None), ("measure", 65, 72, None)]


def test_a_failure_is_an_error_of_the_stage_in_which_it_happened(stages: Stages, clock: FakeClock, traces: FakeTraces):
    step(stages, clock, 5, "search", 1)
    end(stages, clock, 3, FailureClass.OUT_OF_MEMORY)

    assert traces.told == [("set up", 0, 5, None), ("search epoch 1", 5, 8, "out_of_memory")]


def test_what_fails_before_the_first_step_fails_in_the_set_up(stages: Stages, clock: FakeClock, traces: FakeTraces):
    end(stages, clock, 3, FailureClass.USER_ERROR)

    assert traces.told == [("set up", 0, 3, "user_error")]
