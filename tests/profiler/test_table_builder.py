from dataclasses import replace

import pytest

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import Engine
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, RowState, estimate
from fasterseg_core.operator_specs import OperatorSpec, architecture_specs, space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from fasterseg_core.table_rows import canary_spec, neighbours_of
from services.profiler.engines import open_runner
from services.profiler.errors import MeasurementError
from services.profiler.neighbours import LEAST_MS, workload_between
from services.profiler.random_networks import random_architectures
from services.profiler.runners import Workload
from services.profiler.table_builder import build_table, canary_of, fingerprint_differences
from tests.profiler.builders import CONFIG, SPACE, drain
from tests.profiler.fake_runner import FakeRunner, MacsRunner

SPECS = space_specs(SPACE, CONFIG.resolution, 11)
NEIGHBOURS = {neighbour for spec in SPECS for neighbour in neighbours_of(spec)}
ROWS = {*SPECS, *NEIGHBOURS}


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return drain(build_table(CONFIG, MacsRunner()))[1]


def test_a_table_covers_the_space(table: LatencyTable) -> None:
    assert set(table.rows) == ROWS
    assert table.missing(SPECS) == []


def test_a_row_is_what_the_operator_takes_without_being_reordered_at_the_borders(table: LatencyTable) -> None:
    image, logits = 3 * 64 * 64, 11 * 64 * 64  # elements that a network reads and writes itself
    for spec in SPECS:
        border = image if spec.c_in == 3 else logits if spec.key == "upsample 11->11 64x64 /8" else 0
        assert table.milliseconds(spec) == pytest.approx(1e-6 * (spec.macs + 10 * border))


def test_a_row_measured_alone_is_all_that_the_operator_takes(table: LatencyTable) -> None:
    alone = drain(build_table(replace(CONFIG, alone=True), MacsRunner()))[1]
    spec = OperatorSpec.from_key("conv 16->16 8x8 /1")

    assert set(alone.rows) == set(SPECS)
    assert alone.milliseconds(spec) == pytest.approx(1e-6 * (spec.macs + 10 * 2 * 16 * 8 * 8))
    assert alone.fingerprint != table.fingerprint


def test_an_operator_is_quarantined_with_its_neighbours() -> None:
    refused = OperatorSpec.from_key("neighbours 64->64 2x2 /1")
    around = {spec for spec in SPECS if refused in neighbours_of(spec)}

    table = drain(build_table(CONFIG, RefusingRunner(refused)))[1]

    quarantined = {spec for spec, row in table.rows.items() if row.state is RowState.QUARANTINED}
    assert quarantined == {refused, *around}
    assert {table.rows[spec].reason for spec in around} == {"its neighbours: refused"}


def test_an_operator_that_failed_once_beside_its_neighbours_is_measured_again(table: LatencyTable) -> None:
    for spec in (canary_spec(SPECS), min(SPECS, key=lambda spec: spec.macs)):
        assert drain(build_table(CONFIG, RefusingRunner(spec, times=1)))[1] == table


def test_an_operator_that_seems_faster_than_its_neighbours_is_kept_where_noise_is_accepted() -> None:
    spec = next(spec for spec in SPECS if neighbours_of(spec) and spec.macs and spec != canary_spec(SPECS))

    strict = drain(build_table(CONFIG, HastyRunner(spec)))[1]
    tolerant = drain(build_table(replace(CONFIG, accept_noise=True), HastyRunner(spec)))[1]

    assert "alone: measure more passes" in strict.rows[spec].reason
    assert strict.rows[spec].state is RowState.QUARANTINED
    assert tolerant.milliseconds(spec) == LEAST_MS
    assert tolerant.fingerprint.protocol.endswith(", noise accepted, between neighbours")


class HastyRunner(MacsRunner):
    """Takes no time for one operator, and its neighbours with it."""

    def __init__(self, spec: OperatorSpec) -> None:
        super().__init__(slowdown=1e3)  # neighbours take longer than a clock errs
        self._hasty = workload_between(spec).onnx

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        return [0.0] * samples if workload.onnx == self._hasty else super().benchmark(workload, samples)


class RefusingRunner(MacsRunner):
    """Refuses one operator, so often; the canary's own readings, which come first, are not refused."""

    def __init__(self, spec: OperatorSpec, times: int = 10**6) -> None:
        super().__init__()
        self._refused, self._times = workload_between(spec).onnx, times
        self._canary: Workload | None = None

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        self._canary = self._canary or workload
        if workload is not self._canary and workload.onnx == self._refused and self._times:
            self._times -= 1
            raise MeasurementError("refused")
        return super().benchmark(workload, samples)


def test_a_table_says_how_it_was_measured(table: LatencyTable) -> None:
    fingerprint = table.fingerprint

    assert (fingerprint.engine, fingerprint.device, fingerprint.threads) == (Engine.ONNXRUNTIME, "fake", 1)
    quartile = "lower quartile of 2 passes of 2 samples"
    assert fingerprint.protocol == f"written down at the canary's speed, {quartile}, between neighbours"
    assert (fingerprint.resolution, fingerprint.num_classes) == (CONFIG.resolution, 11)


def test_a_table_survives_its_document(table: LatencyTable) -> None:
    assert LatencyTable.from_document(table.to_document()).digest == table.digest


def test_an_estimate_is_the_sum_of_its_operators(table: LatencyTable) -> None:
    (architecture,) = random_architectures(SPACE, 1)

    expected = sum(table.milliseconds(spec) for _, spec in architecture_specs(architecture, CONFIG.resolution, 11))

    assert estimate(architecture, table).milliseconds == pytest.approx(expected)


def test_an_operator_outside_the_space_is_missing_by_name(table: LatencyTable) -> None:
    with pytest.raises(MissingLatencyError, match="has no entry for 'stem 3->64 64x64 /8'"):
        estimate(TABLE_7, table)


def test_parts_have_one_fingerprint_and_make_the_table(table: LatencyTable) -> None:
    configs = [replace(CONFIG, part=part, parts=3, random_networks=0) for part in (1, 2, 3)]
    parts = [drain(build_table(config, MacsRunner()))[1] for config in configs]

    assert {part.fingerprint for part in parts} == {table.fingerprint}
    operators = [spec for part in parts for spec in part.rows if spec not in NEIGHBOURS]
    assert len(operators) == len(SPECS) + 2  # each has the canary's
    assert {spec: row for part in parts for spec, row in part.rows.items()} == table.rows


def test_each_part_has_the_speed_of_its_own_device(table: LatencyTable) -> None:
    config = replace(CONFIG, part=2, parts=3, random_networks=0)

    part = drain(build_table(config, MacsRunner(slowdown=1.2)))[1]

    for spec, row in part.rows.items():
        assert row.milliseconds == pytest.approx(1.2 * table.rows[spec].milliseconds)


def test_known_rows_are_taken_over_and_only_the_others_measured(table: LatencyTable) -> None:
    canary = canary_spec(SPECS)
    others = [spec for spec in SPECS if spec != canary]
    known = {spec: replace(table.rows[spec], milliseconds=9.0) for spec in others[:30]}

    reports, built = drain(build_table(CONFIG, MacsRunner(), known))

    assert {report.key for report in reports} == {spec.key for spec in ROWS if spec not in known}
    assert built.rows == {**table.rows, **known}
    assert built.fingerprint == table.fingerprint


def test_rows_that_are_added_are_at_the_speed_of_the_known_canary(table: LatencyTable) -> None:
    canary = canary_spec(SPECS)
    known = {spec: table.rows[spec] for spec in (canary, *neighbours_of(canary))}
    slower = {spec: replace(row, milliseconds=1.1 * row.milliseconds) for spec, row in known.items()}

    _, built = drain(build_table(CONFIG, MacsRunner(), slower))

    for spec in ROWS:
        assert built.rows[spec].milliseconds == pytest.approx(1.1 * table.rows[spec].milliseconds)


def test_a_known_canary_is_of_no_use_without_its_neighbours(table: LatencyTable) -> None:
    canary = canary_spec(SPECS)
    slower = replace(table.rows[canary], milliseconds=1.1 * table.rows[canary].milliseconds)

    _, built = drain(build_table(CONFIG, MacsRunner(), {canary: slower}))

    assert built.rows == {**table.rows, canary: slower}


def test_known_rows_count_as_done(table: LatencyTable) -> None:
    known = {spec: table.rows[spec] for spec in SPECS[:30]}

    reports, _ = drain(build_table(CONFIG, MacsRunner(), known))

    assert reports[0].done == 30 * CONFIG.passes + 1
    assert reports[-1].done == reports[-1].total == len(ROWS) * CONFIG.passes


def test_a_table_whose_rows_are_all_known_is_there_at_once(table: LatencyTable) -> None:
    assert drain(build_table(CONFIG, FakeRunner(), table.rows)) == ([], table)


def test_known_rows_of_another_space_are_left_out(table: LatencyTable) -> None:
    larger = SearchSpace(num_layers=3, expansion_ratios=(2, 3), student_ratio=2)
    known = dict.fromkeys(space_specs(larger, CONFIG.resolution, 11), table.rows[SPECS[0]])

    _, built = drain(build_table(CONFIG, MacsRunner(), known))

    assert set(built.rows) == ROWS


def test_every_row_is_reported_once_by_the_batch_that_finished_it(table: LatencyTable) -> None:
    reports, built = drain(build_table(CONFIG, MacsRunner()))

    finished = [(key, row) for report in reports for key, row in report.finished.items()]
    assert sorted(key for key, _ in finished) == sorted(spec.key for spec in ROWS)
    assert {OperatorSpec.from_key(key): row for key, row in finished} == built.rows


def test_fingerprints_that_differ_say_in_what(table: LatencyTable) -> None:
    now = replace(table.fingerprint, driver="2", resolution=Resolution(height=64, width=96))

    assert fingerprint_differences(table.fingerprint, table.fingerprint) == []
    assert fingerprint_differences(table.fingerprint, now) == [
        'driver was "none" and is "2"',
        'resolution was {"height": 64, "width": 64} and is {"height": 64, "width": 96}',
    ]


def test_the_canary_is_of_middling_size() -> None:
    macs = sorted(spec.macs for spec in SPECS)

    assert canary_spec(SPECS).macs == macs[len(macs) // 2]
    assert canary_spec(ROWS) == canary_spec(SPECS)


@pytest.mark.parametrize("alone", [False, True])
def test_the_canary_of_a_table_takes_what_it_took(alone: bool) -> None:
    runner = MacsRunner()
    table = drain(build_table(replace(CONFIG, alone=alone), runner))[1]

    canary, milliseconds = canary_of(table.rows)

    assert [milliseconds] == pytest.approx(runner.benchmark(canary, 1))


def test_a_canary_that_could_not_be_measured_has_no_time(table: LatencyTable) -> None:
    refused = neighbours_of(canary_spec(SPECS))[0]
    rows = {**table.rows, refused: replace(table.rows[refused], state=RowState.QUARANTINED)}

    assert canary_of(rows)[1] is None


def test_a_table_of_this_machine() -> None:
    reports, table = drain(build_table(replace(CONFIG, accept_noise=True), open_runner(Engine.ONNXRUNTIME)))

    assert reports[-1].done == reports[-1].total == len(ROWS) * CONFIG.passes
    assert set(table.rows) == ROWS
    measured = {spec for spec, row in table.rows.items() if row.state is RowState.MEASURED and row.milliseconds > 0}
    assert {spec for spec in ROWS if spec.macs} <= measured
