from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from fasterseg_core.latency_table import LatencyRow, RowState
from services.profiler.errors import MeasurementError
from services.profiler.protocol import FIRST_READINGS, Protocol, measure
from services.profiler.runners import Workload
from tests.profiler.builders import drain
from tests.profiler.fake_runner import FakeRunner, a_workload, builders


class TimedRunner(FakeRunner):
    """The clock of the protocol: reading the canary takes a twentieth of a second, everything else `seconds`."""

    def __init__(self, times: Mapping[str, Sequence[float]] | None = None, seconds: float = 1.5) -> None:
        super().__init__(times)
        self.now, self.seconds = 0.0, seconds
        self.last_readings = 10**6  # of the canary, after which it fails

    def monotonic(self) -> float:
        return self.now

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        self.now += 0.05 if self._name(workload) == "canary" else self.seconds
        if self.benchmarked.count("canary") == self.last_readings:
            self.failing.add("canary")
        return super().benchmark(workload, samples)


class ScatteringRunner(TimedRunner):
    """The canary takes 1 ms, but a third of the time half as long again."""

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        times = super().benchmark(workload, samples)
        return [1.0, 1.5, 1.0] * samples if self._name(workload) == "canary" else times


def measured(runner: TimedRunner, *names: str, reference_ms: float | None = None, **protocol):
    canary, clock = a_workload("canary"), runner.monotonic
    return drain(
        measure(builders(*names), canary, runner, Protocol(**protocol), reference_ms=reference_ms, clock=clock)
    )


def rows_of(runner: TimedRunner, *names: str, **protocol) -> dict[str, LatencyRow]:
    return measured(runner, *names, **protocol)[1]


def test_passes_are_interleaved_and_the_canary_is_read_around_long_workloads() -> None:
    runner = TimedRunner()

    rows_of(runner, "a", "b", passes=2)

    assert runner.benchmarked == ["canary"] * FIRST_READINGS + ["a", "canary", "b", "canary"] * 2


def test_reading_the_canary_takes_a_twentieth_of_the_time() -> None:
    runner = TimedRunner(seconds=0.2)

    rows_of(runner, *(f"a{i}" for i in range(50)), passes=2, batch_size=50)

    seconds = 0.05 * (runner.benchmarked.count("canary") - FIRST_READINGS)
    assert 0.8 <= seconds <= 1.0  # beside 20 of the workloads


def test_a_row_is_the_lower_quartile_of_all_samples() -> None:
    runner = TimedRunner({"a": [2.0, 9.0, 1.0]})

    row = rows_of(runner, "a", passes=3, samples=4, max_spread=10)["a"]

    assert (row.milliseconds, row.lower_quartile, row.upper_quartile, row.samples) == (1.0, 1.0, 9.0, 12)
    assert row.state is RowState.MEASURED


class ClockedRunner(TimedRunner):
    """A GPU whose clock falls with every time of `a`."""

    def sm_mhz(self) -> int:
        return 1980 - 15 * self.benchmarked.count("a")


class SlowedRunner(TimedRunner):
    """A GPU that is too hot."""

    def sm_mhz(self) -> int:
        raise MeasurementError("the GPU was slowed down")


def test_a_row_has_the_lowest_clock_beside_its_samples() -> None:
    row = rows_of(ClockedRunner({"a": [2.0]}), "a", passes=3)["a"]

    assert row.sm_mhz == 1980 - 3 * 15


def test_a_gpu_that_slows_itself_down_is_no_reference() -> None:
    with pytest.raises(MeasurementError, match="the canary: the GPU was slowed down"):
        rows_of(SlowedRunner({"a": [2.0]}), "a")


def test_a_cpus_row_has_no_clock() -> None:
    assert rows_of(TimedRunner({"a": [2.0]}), "a", passes=3)["a"].sm_mhz is None


def test_a_time_is_corrected_by_how_slow_the_canary_was_around_it() -> None:
    runner = TimedRunner({"a": [12.0], "canary": [1.0] * FIRST_READINGS + [1.1]})

    row = rows_of(runner, "a", passes=8, samples=1)["a"]

    assert row.milliseconds == row.upper_quartile == pytest.approx(12.0 / 1.1)  # but for the first pass


def test_one_reading_of_the_canary_that_is_off_corrects_nothing() -> None:
    runner = TimedRunner({"a": [12.0], "canary": [*[1.0] * (FIRST_READINGS + 2), 1.1, 1.0]})

    row = rows_of(runner, "a", passes=8)["a"]

    assert (row.milliseconds, row.upper_quartile) == (12.0, 12.0)


def test_the_canary_is_read_as_a_row_is() -> None:
    """Its own row is its time on an undisturbed machine, however its samples scatter."""
    runner = ScatteringRunner({"a": [12.0]})

    row = rows_of(runner, "a", passes=8, reference_ms=1.0)["a"]

    assert row.milliseconds == pytest.approx(12.0)


def test_times_are_those_at_a_reference_that_is_given() -> None:
    runner = TimedRunner({"a": [12.0], "canary": [2.2]})

    assert rows_of(runner, "a", reference_ms=2.0)["a"].milliseconds == pytest.approx(12.0 / 1.1)


def test_a_time_beside_a_slow_canary_is_taken_again() -> None:
    runner = TimedRunner(
        {"a": [5.0, 5.0, 1.0], "canary": [*[1.0] * FIRST_READINGS, 1.5, 1.0]}
    )  # slow after the first pass

    row = rows_of(runner, "a", passes=2)["a"]

    assert row.milliseconds == 1.0
    assert runner.benchmarked.count("a") == 4  # the second began beside the slow canary


def test_only_what_was_measured_beside_a_slow_canary_is_measured_again() -> None:
    runner = TimedRunner({"canary": [*[1.0] * (FIRST_READINGS + 1), 1.5, 1.0]})  # slow after b

    rows_of(runner, "a", "b", "c", passes=1)

    assert [runner.benchmarked.count(name) for name in "abc"] == [1, 2, 2]


def test_a_machine_that_stays_slow_is_quarantined() -> None:
    runner = TimedRunner({"canary": [1.0] * FIRST_READINGS + [3.0]})

    row = rows_of(runner, "a", passes=2)["a"]

    assert row.state is RowState.QUARANTINED
    assert row.reason == "the canary took 200% longer than its reference"


def test_a_scattering_workload_is_measured_again() -> None:
    runner = TimedRunner({"a": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0]})

    row = rows_of(runner, "a", passes=3)["a"]

    assert (row.state, row.milliseconds) == (RowState.MEASURED, 1.0)


def test_a_workload_that_always_scatters_is_quarantined() -> None:
    runner = TimedRunner({"a": [1.0, 2.0, 3.0] * 3})

    row = rows_of(runner, "a", passes=3, attempts=3)["a"]

    assert row.state is RowState.QUARANTINED
    assert row.reason == "unstable: half of the samples lie between 1.000 and 3.000 ms"


@pytest.mark.parametrize("times", [{"a": [1.0, 2.0, 3.0] * 3}, {"canary": [1.0] * FIRST_READINGS + [3.0]}])
def test_what_scatters_or_drifts_at_every_attempt_is_kept_with_the_reason_where_noise_is_accepted(times) -> None:
    strict, tolerant = TimedRunner(times), TimedRunner(times)

    refused = rows_of(strict, "a", passes=3)["a"]
    kept = rows_of(tolerant, "a", passes=3, accept_noise=True)["a"]

    assert kept == replace(refused, state=RowState.MEASURED)
    assert kept.reason
    assert tolerant.benchmarked == strict.benchmarked


def test_a_failing_workload_is_quarantined_though_noise_is_accepted() -> None:
    runner = TimedRunner()
    runner.failing = {"a"}

    assert rows_of(runner, "a", accept_noise=True)["a"].state is RowState.QUARANTINED


def test_a_scatter_below_the_clocks_is_accepted() -> None:
    runner = TimedRunner({"a": [0.001, 0.002, 0.003]})

    assert rows_of(runner, "a", passes=3)["a"].state is RowState.MEASURED


def test_a_wrong_output_is_quarantined_and_never_timed() -> None:
    runner = TimedRunner()
    runner.wrong = {"a"}

    rows = rows_of(runner, "a", "b")

    assert rows["a"].state is RowState.QUARANTINED
    assert rows["a"].reason.startswith("the engine's output differs from torch's by")
    assert rows["b"].state is RowState.MEASURED


def test_a_failing_workload_is_quarantined_with_the_engines_reason() -> None:
    runner = TimedRunner()
    runner.failing = {"b"}

    rows = rows_of(runner, "a", "b", "c")

    assert (rows["b"].state, rows["b"].reason) == (RowState.QUARANTINED, "b failed")
    assert rows["c"].state is RowState.MEASURED


def test_a_canary_that_fails_ends_the_measurement() -> None:
    runner = TimedRunner()
    runner.failing = {"canary"}

    with pytest.raises(MeasurementError, match="canary failed"):
        rows_of(runner, "a")


def test_a_canary_that_fails_meanwhile_quarantines_what_it_stands_beside() -> None:
    runner = TimedRunner()
    runner.last_readings = FIRST_READINGS + 1

    rows = rows_of(runner, "a", "b", passes=1, attempts=1)

    assert (rows["a"].state, rows["b"].reason) == (RowState.MEASURED, "the canary: canary failed")


def test_a_batch_is_finished_before_the_next_begins() -> None:
    runner = TimedRunner()

    rows = rows_of(runner, "a", "b", "c", passes=2, batch_size=2)

    assert [name for name in runner.benchmarked if name != "canary"] == ["a", "b", "a", "b", "c", "c"]
    assert list(rows) == ["a", "b", "c"]


def test_progress_counts_up_to_the_total_though_passes_repeat() -> None:
    runner = TimedRunner({"a": [1.0, 2.0, 3.0]})

    reports, _ = measured(runner, "a", "b", passes=3, batch_size=1)

    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (done[0], done[-1], {report.total for report in reports}) == (1, 6, {6})
    assert reports[-1].seconds_left == 0
    assert {report.key for report in reports} == {"a", "b"}


def test_the_drift_beside_times_that_were_used_is_reported() -> None:
    runner = TimedRunner({"canary": [1.0] * FIRST_READINGS + [1.5]})

    reports, _ = measured(runner, "a", "b", passes=2, batch_size=1)

    assert reports[-1].max_drift == pytest.approx(0.5)


def test_a_protocol_without_passes_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Protocol(passes=0)
