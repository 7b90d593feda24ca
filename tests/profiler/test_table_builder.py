import pytest

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import DatasetName, Engine, ProfileConfig
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, RowState, estimate
from fasterseg_core.operator_specs import architecture_specs, space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.engines import open_runner
from services.profiler.fidelity import random_architectures
from services.profiler.table_builder import build_table, canary_spec
from tests.profiler.fake_runner import MacsRunner
from tests.profiler.test_protocol import drain

SPACE = SearchSpace(num_layers=3, expansion_ratios=(2,), student_ratio=2)
CONFIG = ProfileConfig(
    space=SPACE, resolution=Resolution(height=64, width=64), dataset=DatasetName.CAMVID, passes=2, samples=2
)
SPECS = space_specs(SPACE, CONFIG.resolution, 11)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return drain(build_table(CONFIG, MacsRunner()))[1]


def test_a_table_covers_the_space(table: LatencyTable) -> None:
    assert set(table.rows) == set(SPECS)
    assert table.missing(SPECS) == []


def test_a_table_says_how_it_was_measured(table: LatencyTable) -> None:
    fingerprint = table.fingerprint

    assert (fingerprint.engine, fingerprint.device, fingerprint.threads) == (Engine.ONNXRUNTIME, "fake", 1)
    assert fingerprint.protocol == "written down, median of 2 passes' medians of 2 samples"
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


def test_the_canary_is_of_middling_size() -> None:
    macs = sorted(spec.macs for spec in SPECS)

    assert canary_spec(SPECS).macs == macs[len(macs) // 2]


def test_a_table_of_this_machine() -> None:
    reports, table = drain(build_table(CONFIG, open_runner(Engine.ONNXRUNTIME)))

    assert reports[-1].done == reports[-1].total == len(SPECS) * CONFIG.passes
    assert set(table.rows) == set(SPECS)
    assert all(row.milliseconds > 0 for row in table.rows.values() if row.state is RowState.MEASURED)
