from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.client.attempt_schemas import AttemptSuccess, PhaseUsage, Usage
from services.client.schemas import FailureClass, JsonObject, Progress, Reason
from services.workers.metering import Meter, MeteredAttempt, device_name
from services.workers.stages import Stages
from tests.client.fake_control_plane import SUBMISSION_ID, TOKEN, FakeControlPlane, serving
from tests.clock import FakeClock
from tests.workers.fakes import a_progress


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def meter(clock: FakeClock) -> Meter:
    return Meter(clock)


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with serving(FakeControlPlane()) as plane:
        yield plane


@pytest.fixture
def attempt(plane: FakeControlPlane, meter: Meter) -> Iterator[MeteredAttempt]:
    with MeteredAttempt(
        plane.url,
        SUBMISSION_ID,
        token=TOKEN,
        heartbeat_seconds=60,
        device="a CPU",
        devices=1,
        first_event=0,
        traceparent=None,
        meter=meter,
        stages=Stages(None, None, {}),
    ) as attempt:
        yield attempt


def a_step(step: int, *, epoch: int = 1, phase: str = "search", steps: int = 4) -> Progress:
    return a_progress(step=step, epoch=epoch, phase=phase, steps=steps)


def an_epoch(phase: str = "search", miou: float | None = 0.5) -> JsonObject:
    return {"phase": phase, "epoch": 1, "miou": miou}


def phases(meter: Meter) -> dict[str, PhaseUsage]:
    return meter.usage("a CPU").phases


def told(plane: FakeControlPlane) -> list[Usage]:
    return [Usage.model_validate(event.data) for event in plane.worker_events.values() if event.kind == "usage"]


def test_steps_are_timed_from_one_to_the_next_and_the_first_belongs_to_the_set_up(clock: FakeClock, meter: Meter):
    for step, seconds in ((1, 30.0), (2, 2.0), (3, 4.0)):
        clock.now += seconds
        meter.step(a_step(step))

    assert phases(meter)["search"] == PhaseUsage(steps=2, step_seconds=6.0, evaluations=0, evaluation_seconds=0.0)
    assert meter.usage("a CPU").seconds == 36.0


def test_evaluations_are_told_apart_from_steps(clock: FakeClock, meter: Meter):
    meter.step(a_step(3))
    clock.now += 2.0
    meter.step(a_step(4))
    clock.now += 10.0
    meter.evaluation("search")
    clock.now += 3.0
    meter.step(a_step(1, epoch=2))

    assert phases(meter)["search"] == PhaseUsage(steps=2, step_seconds=5.0, evaluations=1, evaluation_seconds=10.0)


def test_each_phase_has_its_own_times(clock: FakeClock, meter: Meter):
    meter.step(a_step(3, phase="pretrain"))
    for step, phase, seconds in ((4, "pretrain", 1.0), (1, "search", 5.0), (2, "search", 5.0)):
        clock.now += seconds
        meter.step(a_step(step, phase=phase))

    assert [(name, phase.steps, phase.step_seconds) for name, phase in phases(meter).items()] == [
        ("pretrain", 1, 1.0),
        ("search", 2, 10.0),
    ]


def test_a_measurement_that_is_repeated_takes_time_and_is_no_step(clock: FakeClock, meter: Meter):
    for step in (1, 2, 2, 5):
        meter.step(a_step(step))
        clock.now += 1.0

    assert (phases(meter)["search"].steps, phases(meter)["search"].step_seconds) == (4, 3.0)


def test_waiting_is_no_part_of_what_comes_before_the_first_step(clock: FakeClock, meter: Meter):
    for progress, seconds in ((a_step(0, phase="waiting", steps=0), 60.0), (a_step(1), 5.0), (a_step(2), 2.0)):
        clock.now += seconds
        meter.step(progress)

    assert phases(meter)["waiting"] == PhaseUsage(steps=0, step_seconds=60.0, evaluations=0, evaluation_seconds=0.0)
    assert (phases(meter)["search"].steps, phases(meter)["search"].step_seconds) == (1, 2.0)


def test_memory_is_that_of_the_process(meter: Meter):
    assert 10_000_000 < meter.usage("a CPU").peak_memory_bytes < 1e12


def test_a_checkpoint_is_no_part_of_a_step(attempt: MeteredAttempt, clock: FakeClock, meter: Meter, tmp_path: Path):
    (tmp_path / "state").write_bytes(b"state")
    attempt.progress(a_step(1))
    clock.now += 7.0
    attempt.checkpoint(tmp_path / "state", a_step(1))
    clock.now += 2.0
    attempt.progress(a_step(2))

    assert phases(meter)["search"].step_seconds == 2.0


def test_only_an_epoch_that_was_scored_is_an_evaluation(attempt: MeteredAttempt, meter: Meter):
    attempt.progress(a_step(1))
    attempt.progress(a_step(2))
    attempt.event("epoch", an_epoch(miou=None))
    attempt.event("epoch", an_epoch())

    assert phases(meter)["search"].evaluations == 1


@pytest.mark.parametrize("end", ["succeed", "fail", "stopped"])
def test_an_attempt_says_at_its_end_what_it_took(
    plane: FakeControlPlane, attempt: MeteredAttempt, clock: FakeClock, end: str
):
    clock.now += 9.0
    match end:
        case "succeed":
            attempt.succeed(AttemptSuccess(result={}))
        case "fail":
            attempt.fail(Reason(failure=FailureClass.OUT_OF_MEMORY, message="no memory is left"))
        case _:
            attempt.stopped()

    assert plane.end == end
    assert [(usage.device, usage.seconds) for usage in told(plane)] == [("a CPU", 9.0)]


def test_a_processor_is_named_with_its_threads():
    assert device_name(torch.device("cpu"), 2).endswith(", 2 threads")
