from collections.abc import Generator, Iterator
from itertools import islice

import pytest

from fasterseg_core.reports import EpochReport, Report, StepReport
from services.profiler.protocol import MeasurementProgress
from services.workers.following import counted, follow, follow_measurement
from services.workers.job import Stopped
from tests.clock import FakeClock
from tests.workers.fakes import SEARCH, FakeAttempt, FakeMetrics, a_progress


def a_step(step: int, latency_ms: float | None = None) -> StepReport:
    return StepReport(
        phase="search", epoch=1, epochs=1, step=step, steps=2, fraction=step / 2, loss=1.0, latency_ms=latency_ms
    )


def reports() -> Iterator[Report]:
    yield a_step(1, latency_ms=5.0)
    yield a_step(2)
    yield EpochReport(phase="search", epoch=1, loss=1.0, latency_ms=4.0, miou=0.25)


def test_steps_are_told_and_an_epoch_leaves_an_event_and_a_checkpoint():
    attempt, clock = FakeAttempt(), FakeClock()

    follow(
        reports(),
        lambda: {"told": len(attempt.told), "epochs": len(attempt.events)},
        SEARCH,
        None,
        attempt,
        FakeMetrics(),
        clock,
    )

    assert [progress.step for progress in attempt.told] == [1, 2]
    assert [(kind, data["miou"]) for kind, data in attempt.events] == [("epoch", 0.25)]
    first, last = attempt.checkpoints
    assert first[0] == {"told": 1, "epochs": 0}  # the first step's, whose checkpoint shows what one costs
    assert last[0] == {"told": 2, "epochs": 1}
    assert (last[1].step, last[1].miou) == (2, 0.25)


def test_an_epochs_warning_is_left_as_an_event():
    attempt = FakeAttempt()
    collapsing = EpochReport(phase="search", epoch=1, loss=1.0, warning="the student is collapsing")

    follow([a_step(1), collapsing], dict, SEARCH, None, attempt, FakeMetrics())

    warning, epoch = attempt.events
    assert warning == ("warning", {"phase": "search", "epoch": 1, "message": "the student is collapsing"})
    assert epoch[0] == "epoch"


def test_steps_epochs_and_checkpoints_are_shown_to_prometheus():
    attempt, clock, metrics = FakeAttempt(), FakeClock(), FakeMetrics()
    attempt.waiting = 3

    def slow_reports() -> Iterator[Report]:
        for report in reports():
            clock.now += 2.0
            yield report

    def slow_state() -> dict[str, object]:
        clock.now += 0.5
        return {}

    follow(slow_reports(), slow_state, SEARCH, None, attempt, metrics, clock)

    assert metrics.steps == [(1, 2.0, 3), (1, 2.0, 3)], "without what a checkpoint takes"
    assert [report.miou for report in metrics.epochs] == [0.25]
    assert [seconds for seconds, _ in metrics.checkpoints] == [0.5]
    assert metrics.checkpoints[0][1] > 0


def test_a_value_stays_shown_until_there_is_a_newer_one():
    attempt = FakeAttempt()

    follow(reports(), dict, SEARCH, None, attempt, FakeMetrics())

    assert [progress.latency_ms for progress in attempt.told] == [5.0, 5.0]


def test_an_attempt_that_resumes_between_the_last_step_and_the_end_of_its_epoch_goes_on():
    attempt = FakeAttempt()

    follow(islice(reports(), 2, None), dict, SEARCH, a_progress(step=2), attempt, FakeMetrics())

    assert [kind for kind, _ in attempt.events] == ["epoch"]
    assert [(progress.step, progress.miou) for _, progress in attempt.checkpoints] == [(2, 0.25)]


def test_what_an_earlier_attempt_measured_stays_shown():
    attempt = FakeAttempt()

    follow([a_step(2)], dict, SEARCH, a_progress(miou=0.5), attempt, FakeMetrics())

    assert [progress.miou for progress in attempt.told] == [0.5]


def test_work_stops_at_the_next_step_and_keeps_its_state():
    attempt = FakeAttempt(stop_after=2)

    with pytest.raises(Stopped):
        follow(reports(), lambda: {"told": len(attempt.told)}, SEARCH, None, attempt, FakeMetrics(), FakeClock())

    assert [progress.step for progress in attempt.told] == [1, 2]
    assert attempt.checkpoints[-1][0] == {"told": 2}


def measurements() -> Generator[MeasurementProgress, None, str]:
    for done in (1, 2):
        yield MeasurementProgress(done=done, total=2, key="conv", seconds_left=1.0, max_drift=0.0)
    return "table"


def test_a_measurement_is_told_within_its_share_of_the_job():
    attempt = FakeAttempt()

    result = follow_measurement(measurements(), "measure", 0.5, 1.0, attempt)

    assert result == "table"
    assert [progress.fraction for progress in attempt.told] == [0.75, 1.0]


def test_a_measurement_stops_between_two_operators():
    with pytest.raises(Stopped):
        follow_measurement(measurements(), "measure", 0.0, 1.0, FakeAttempt(stop_after=1))


def test_counted_items_tell_how_many_are_done():
    attempt = FakeAttempt()

    assert list(counted("abcd", 4, "evaluate", 0.5, 1.0, attempt)) == list("abcd")
    assert [progress.fraction for progress in attempt.told] == [0.625, 0.75, 0.875, 1.0]
