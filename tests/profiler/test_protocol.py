from collections.abc import Generator
from typing import TypeVar

import pytest

from fasterseg_core.latency_table import LatencyRow, RowState
from services.profiler.protocol import MeasurementProgress, Protocol, measure
from services.profiler.runners import MeasurementError
from tests.profiler.fake_runner import FakeRunner, a_workload, builders

Result = TypeVar("Result")


def drain(measuring: Generator[MeasurementProgress, None, Result]) -> tuple[list[MeasurementProgress], Result]:
    reports = []
    while True:
        try:
            reports.append(next(measuring))
        except StopIteration as end:
            return reports, end.value


def rows_of(runner: FakeRunner, *names: str, **protocol) -> dict[str, LatencyRow]:
    return drain(measure(builders(*names), a_workload("canary"), runner, Protocol(**protocol)))[1]


def test_passes_are_interleaved_with_the_canary_between_them() -> None:
    runner = FakeRunner()

    rows_of(runner, "a", "b", passes=2)

    assert runner.benchmarked == ["canary"] * 3 + ["a", "b", "canary"] * 2


def test_a_row_is_the_lower_quartile_of_all_samples() -> None:
    runner = FakeRunner({"a": [2.0, 9.0, 1.0]})

    row = rows_of(runner, "a", passes=3, samples=4, max_spread=10)["a"]

    assert (row.milliseconds, row.lower_quartile, row.upper_quartile, row.samples) == (1.0, 1.0, 9.0, 12)
    assert row.state is RowState.MEASURED


def test_a_pass_beside_a_slow_canary_is_repeated() -> None:
    runner = FakeRunner({"a": [5.0, 1.0], "canary": [1.0, 1.0, 1.0, 1.5, 1.0]})  # slow after the first pass

    row = rows_of(runner, "a", passes=2)["a"]

    assert row.milliseconds == 1.0
    assert runner.benchmarked.count("a") == 4  # the second pass began beside the slow canary


def test_a_machine_that_stays_slow_is_quarantined() -> None:
    runner = FakeRunner({"canary": [1.0, 1.0, 1.0, 3.0]})

    row = rows_of(runner, "a", passes=2)["a"]

    assert row.state is RowState.QUARANTINED
    assert row.reason == "the canary took 200% longer than at its best"


def test_a_scattering_workload_is_measured_again() -> None:
    runner = FakeRunner({"a": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0]})

    row = rows_of(runner, "a", passes=3)["a"]

    assert (row.state, row.milliseconds) == (RowState.MEASURED, 1.0)


def test_a_workload_that_always_scatters_is_quarantined() -> None:
    runner = FakeRunner({"a": [1.0, 2.0, 3.0] * 3})

    row = rows_of(runner, "a", passes=3, attempts=3)["a"]

    assert row.state is RowState.QUARANTINED
    assert row.reason == "unstable: half of the samples lie between 1.000 and 3.000 ms"


def test_a_scatter_below_the_clocks_is_accepted() -> None:
    runner = FakeRunner({"a": [0.001, 0.002, 0.003]})

    assert rows_of(runner, "a", passes=3)["a"].state is RowState.MEASURED


def test_a_wrong_output_is_quarantined_and_never_timed() -> None:
    runner = FakeRunner()
    runner.wrong = {"a"}

    rows = rows_of(runner, "a", "b")

    assert rows["a"].state is RowState.QUARANTINED
    assert rows["a"].reason.startswith("the engine's output differs from torch's by")
    assert rows["b"].state is RowState.MEASURED


def test_a_failing_workload_is_quarantined_with_the_engines_reason() -> None:
    runner = FakeRunner()
    runner.failing = {"b"}

    rows = rows_of(runner, "a", "b", "c")

    assert (rows["b"].state, rows["b"].reason) == (RowState.QUARANTINED, "b failed")
    assert rows["c"].state is RowState.MEASURED


def test_a_canary_that_fails_ends_the_measurement() -> None:
    runner = FakeRunner()
    runner.failing = {"canary"}

    with pytest.raises(MeasurementError, match="canary failed"):
        rows_of(runner, "a")


def test_a_batch_is_finished_before_the_next_begins() -> None:
    runner = FakeRunner()

    rows = rows_of(runner, "a", "b", "c", passes=1, batch_size=2)

    assert runner.benchmarked == ["canary", "canary", "a", "b", "canary", "canary", "c", "canary"]
    assert list(rows) == ["a", "b", "c"]


def test_progress_counts_up_to_the_total_though_passes_repeat() -> None:
    runner = FakeRunner({"a": [1.0, 2.0, 3.0]})

    reports, _ = drain(measure(builders("a", "b"), a_workload("canary"), runner, Protocol(passes=3, batch_size=1)))

    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (done[0], done[-1], {report.total for report in reports}) == (1, 6, {6})
    assert reports[-1].seconds_left == 0
    assert {report.key for report in reports} == {"a", "b"}


def test_the_drift_of_passes_that_were_used_is_reported() -> None:
    runner = FakeRunner({"canary": [1.0, 1.0, 1.0, 1.5]})

    reports, _ = drain(measure(builders("a", "b"), a_workload("canary"), runner, Protocol(passes=2, batch_size=1)))

    assert reports[-1].max_drift == pytest.approx(0.5)


def test_a_protocol_without_passes_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Protocol(passes=0)
