from dataclasses import replace

import pytest
import torch

from fasterseg_core.latency_table import RowState
from fasterseg_core.operator_specs import NEIGHBOUR_CHANNELS, OperatorSpec, input_shapes, space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from fasterseg_core.table_rows import neighbours_of
from services.profiler.cpu_timing import CLOCK_ERROR_MS
from services.profiler.neighbours import Between, time_of, without_neighbours, workload_between
from tests.builders import a_latency_row

SPACE = SearchSpace(num_layers=3, expansion_ratios=(1, 2), student_ratio=2)
QUARANTINED = replace(a_latency_row(), state=RowState.QUARANTINED, reason="unstable")


@pytest.mark.parametrize(
    ("key", "neighbours"),
    [
        ("conv 8->12 9x14 /1", ["8->8 9x14", "12->12 9x14"]),
        ("zoomed_conv_x2 8->12 9x14 /2", ["8->8 9x14", "12->12 5x7"]),
        ("upsample 8->8 9x14 /2", ["8->8 5x7", "8->8 9x14"]),
        ("concat 8->20 9x14 /1", ["8->8 9x14", "12->12 9x14", "20->20 9x14"]),
        ("prediction 8->19 9x14 /1", ["8->8 9x14", "19->19 9x14"]),
        ("stem 3->16 72x112 /8", ["16->16 9x14"]),
        ("upsample 19->19 72x112 /8", ["19->19 9x14"]),
        ("neighbours 8->8 9x14 /1", []),
    ],
)
def test_an_operator_has_neighbours_at_each_map_but_the_image_and_the_logits(key: str, neighbours: list[str]):
    found = [spec.key for spec in neighbours_of(OperatorSpec.from_key(key))]

    assert found == [f"neighbours {maps} /1" for maps in neighbours]


@pytest.mark.parametrize("spec", space_specs(SPACE, Resolution(height=71, width=90), 5), ids=lambda spec: spec.key)
def test_an_operator_runs_between_its_neighbours(spec: OperatorSpec):
    workload = workload_between(spec)
    module = workload.module
    assert isinstance(module, Between)

    maps = [torch.from_numpy(x) for x in workload.random_inputs()]
    read = maps if module.before is None else [layer(x) for layer, x in zip(module.before, maps, strict=True)]
    expected = module.after(module.operator(*read))

    assert [tuple(x.shape) for x in read] == list(input_shapes(spec))
    assert torch.equal(module(*maps), expected)
    assert expected.shape[1] in (NEIGHBOUR_CHANNELS, 5)  # what is reordered at the borders is small


CONV = OperatorSpec.from_key("conv 8->12 9x14 /1")
CONCAT = OperatorSpec.from_key("concat 8->20 9x14 /1")


def test_half_of_what_the_neighbours_of_each_map_take_is_subtracted():
    neighbours = [a_latency_row(0.5), a_latency_row(1.5)]
    row = a_latency_row(5.0, lower_quartile=5.0, upper_quartile=6.0, samples=7)
    expected = a_latency_row(4.0, lower_quartile=4.0, upper_quartile=5.0, samples=7)

    assert time_of(neighbours) == 1.0
    assert without_neighbours(CONV, row, neighbours, CLOCK_ERROR_MS) == expected


def test_what_an_engine_does_nothing_for_takes_no_time():
    row = a_latency_row(0.75, lower_quartile=0.75, upper_quartile=1.25)
    expected = a_latency_row(0.0, lower_quartile=0.0, upper_quartile=0.25)

    assert without_neighbours(CONCAT, row, [a_latency_row(2.0)], CLOCK_ERROR_MS) == expected


def test_a_convolution_that_takes_no_time_was_mismeasured():
    row = without_neighbours(CONV, a_latency_row(0.75), [a_latency_row(2.0)], CLOCK_ERROR_MS)

    assert row.state is RowState.QUARANTINED
    assert row.reason.startswith("0.7500 ms between neighbours that take 1.0000 ms alone")


def test_a_convolution_too_short_for_the_clock_takes_the_least_that_can_be_told():
    row = without_neighbours(CONV, a_latency_row(0.995), [a_latency_row(2.0)], CLOCK_ERROR_MS)

    assert row == a_latency_row(0.001)


def test_a_row_stands_without_neighbours():
    assert without_neighbours(CONV, a_latency_row(0.0), [], CLOCK_ERROR_MS) == a_latency_row(0.0)


def test_an_operator_whose_neighbours_are_quarantined_is_quarantined():
    row = without_neighbours(CONV, a_latency_row(5.0), [a_latency_row(), QUARANTINED], CLOCK_ERROR_MS)

    assert (row.state, row.reason) == (RowState.QUARANTINED, "its neighbours: unstable")


def test_a_quarantined_operator_keeps_its_reason():
    own = replace(QUARANTINED, reason="the engine refused it")

    assert without_neighbours(CONV, own, [QUARANTINED, a_latency_row()], CLOCK_ERROR_MS) == own
