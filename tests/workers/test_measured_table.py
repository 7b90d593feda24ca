from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

import pytest

from fasterseg_core.checkpoint import CheckpointKind, pack
from fasterseg_core.config import DatasetName, ProfileConfig
from fasterseg_core.latency_table import LatencyTable, RowState
from fasterseg_core.operator_specs import space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from services.client.attempt_schemas import CheckpointRef, ResolvedInputs
from services.client.schemas import FailureClass
from services.profiler.protocol import MeasurementProgress
from services.profiler.table_builder import build_table
from services.workers.execution import reason_for
from services.workers.job import Job, Stopped
from services.workers.measured_table import kept, known_rows, measure_table
from services.workers.outputs import json_object
from tests.clock import FakeClock
from tests.profiler.fake_runner import FakeRunner, MacsRunner
from tests.workers.fakes import FakeAttempt, a_job, a_progress

MEASUREMENT = CheckpointKind.MEASUREMENT
CONFIG = ProfileConfig(
    space=SearchSpace(num_layers=3, expansion_ratios=(2,), student_ratio=2),
    resolution=Resolution(height=64, width=64),
    dataset=DatasetName.CAMVID,
    passes=1,
    samples=1,
)
SPECS = space_specs(CONFIG.space, CONFIG.resolution, 11)
DIGEST = "a" * 64

Result = TypeVar("Result")


def a_table_job(*checkpoints: str, latency_table: str | None = None) -> Job:
    """A profile job with checkpoints, named by their first digit, and the table that it names."""
    return a_job(
        inputs=ResolvedInputs(latency_table=latency_table),
        checkpoints=[CheckpointRef(sha256=name * 64, size=1, progress=a_progress()) for name in checkpoints],
    )


def an_attempt(**values: object) -> FakeAttempt:
    return FakeAttempt(kind=MEASUREMENT, **values)


def a_checkpoint(table: LatencyTable) -> bytes:
    return pack(json_object(table.to_document()), MEASUREMENT)


def returned(work: Generator[MeasurementProgress, None, Result]) -> Result:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return returned(build_table(CONFIG, MacsRunner()))


@pytest.fixture
def half(table: LatencyTable) -> LatencyTable:
    """The first rows, each of another number than would be measured now."""
    return LatencyTable(table.fingerprint, {spec: replace(table.rows[spec], samples=99) for spec in SPECS[:20]})


def test_finished_rows_are_kept_after_each_batch(table: LatencyTable):
    attempt = an_attempt()

    def slow() -> Generator[MeasurementProgress, None, LatencyTable]:
        building = build_table(CONFIG, MacsRunner())
        while True:
            clock.now += 1.0
            try:
                yield next(building)
            except StopIteration as finished:
                return finished.value

    clock = FakeClock()
    built = returned(kept(slow(), LatencyTable(table.fingerprint, {}), 0.5, attempt, clock))

    states = [LatencyTable.from_document(state) for state, _ in attempt.checkpoints]
    assert [len(state.rows) for state in states] == [20, 40, len(table.rows)]
    assert states[-1] == built == table
    assert [progress.fraction for _, progress in attempt.checkpoints] == [
        0.5 * 20 / len(table.rows),
        0.5 * 40 / len(table.rows),
        0.5,
    ]


def test_rows_are_kept_no_more_often_than_their_cost_allows(table: LatencyTable):
    attempt = an_attempt()

    returned(kept(build_table(CONFIG, MacsRunner()), LatencyTable(table.fingerprint, {}), 1.0, attempt, Hurried()))

    assert len(attempt.checkpoints) == 1


class Hurried(FakeClock):
    """A clock on which keeping the state takes a second and measuring nothing."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_an_attempt_that_follows_takes_the_kept_rows_and_measures_the_others(table: LatencyTable, half: LatencyTable):
    attempt = an_attempt(blobs={DIGEST: a_checkpoint(half)})

    built = measure_table(a_table_job("a"), CONFIG, MacsRunner(), 1.0, attempt)

    assert {spec for spec, row in built.rows.items() if row.samples == 99} == set(SPECS[:20])
    assert set(built.rows) == set(table.rows)
    assert attempt.told[0].step == 21
    assert attempt.events == []
    assert len(attempt.checkpoints[0][0]["rows"]) == 40


def test_kept_rows_of_another_fingerprint_are_dropped_and_the_field_is_named(table: LatencyTable, half: LatencyTable):
    other = LatencyTable(replace(half.fingerprint, driver="2", device="a faster one"), half.rows)
    attempt = an_attempt(blobs={DIGEST: a_checkpoint(other)})

    built = measure_table(a_table_job("a"), CONFIG, MacsRunner(), 1.0, attempt)

    assert built == table
    assert attempt.events == [
        (
            "rows_dropped",
            {"rows": 20, "reason": 'device was "a faster one" and is "fake"; driver was "2" and is "none"'},
        )
    ]


def test_quarantined_rows_of_an_earlier_attempt_are_finished_too(half: LatencyTable):
    rows = {spec: replace(row, state=RowState.QUARANTINED, reason="unstable") for spec, row in half.rows.items()}
    attempt = an_attempt(blobs={DIGEST: a_checkpoint(LatencyTable(half.fingerprint, rows))})

    assert known_rows(a_table_job("a"), half.fingerprint, attempt).rows == rows


@pytest.mark.parametrize("state", RowState)
def test_measured_rows_of_a_named_table_are_taken_over_and_unstable_ones_measured_anew(
    half: LatencyTable, state: RowState
):
    unstable = replace(half.rows[SPECS[0]], state=state, reason="unstable")
    earlier = LatencyTable(half.fingerprint, {**half.rows, SPECS[0]: unstable})
    attempt = an_attempt(latency_tables={DIGEST: json_object(earlier.to_document())})

    built = measure_table(a_table_job(latency_table=DIGEST), CONFIG, MacsRunner(), 1.0, attempt)

    assert {spec for spec, row in built.rows.items() if row.samples == 99} == set(SPECS[1:20])
    assert built.missing(SPECS) == []


def test_a_named_table_of_another_fingerprint_is_the_users_error_and_the_field_is_named(half: LatencyTable):
    earlier = LatencyTable(replace(half.fingerprint, engine_version="0.9"), half.rows)
    attempt = an_attempt(latency_tables={DIGEST: json_object(earlier.to_document())})

    with pytest.raises(ValueError, match='its engine_version was "0.9" and is "1"') as error:
        measure_table(a_table_job(latency_table=DIGEST), CONFIG, FakeRunner(), 1.0, attempt)

    assert reason_for(error.value).failure is FailureClass.USER_ERROR
    assert str(error.value).startswith("inputs.latency_table: rows of latency table aaaaaaaaaaaa cannot be taken over")


def test_what_an_attempt_measured_is_preferred_to_the_named_table(table: LatencyTable, half: LatencyTable):
    attempt = an_attempt(blobs={DIGEST: a_checkpoint(half)}, latency_tables={DIGEST: json_object(table.to_document())})

    known = known_rows(a_table_job("a", latency_table=DIGEST), table.fingerprint, attempt)

    assert known.rows == {**table.rows, **half.rows}


def test_a_cancelled_job_stops_between_two_operators():
    attempt = an_attempt(stop_after=3)

    with pytest.raises(Stopped):
        measure_table(a_table_job(), CONFIG, MacsRunner(), 1.0, attempt)

    assert len(attempt.told) == 3
