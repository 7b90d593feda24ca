from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.blocks import build_operator
from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.operator_specs import (
    OperatorSpec,
    Structure,
    architecture_specs,
    cell_spec,
    input_shapes,
    space_specs,
)
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS, Operator, Resolution, SearchSpace
from tests.builders import a_certain_relaxation, a_relaxation, a_resolution, a_search_space, an_architecture

FULL = Resolution(height=1024, width=2048)  # sec. 4.1
EVERY_KIND = (*Operator, *Structure)


def a_spec(operator, **changes):
    return replace(OperatorSpec(operator=operator, c_in=6, c_out=10, height=9, width=14, stride=1), **changes)


def counted_macs(module, *shapes):
    """What torch counts, at two floating-point operations for each MAC."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.zeros(shape) for shape in shapes))
    return counter.get_total_flops() // 2


def total_macs(architecture, resolution, num_classes):
    return sum(spec.macs for _, spec in architecture_specs(architecture, resolution, num_classes))


@given(
    st.builds(
        OperatorSpec,
        operator=st.sampled_from(EVERY_KIND),
        c_in=st.integers(1, 4096),
        c_out=st.integers(1, 4096),
        height=st.integers(1, 4096),
        width=st.integers(1, 4096),
        stride=st.sampled_from([1, 2, 8]),
    )
)
def test_a_key_round_trips(spec):
    assert OperatorSpec.from_key(spec.key) == spec


@pytest.mark.parametrize(
    "key", ["", "conv", "pool 8->8 4x4 /1", "conv 8->8 4 /1", "conv 8-8 4x4 /1", "conv a->8 4x4 /1", "conv 8->8 4x4 1"]
)
def test_what_is_no_key_is_refused_and_named(key):
    with pytest.raises(ValueError, match=r"is not an operator key|is not canonical"):
        OperatorSpec.from_key(key)


@pytest.mark.parametrize("key", ["conv 08->8 4x4 /1", "conv 8->8 4x4 //1", "conv 8->8 4x+4 /1"])
def test_only_the_canonical_text_is_a_key(key):
    with pytest.raises(ValueError, match="is not"):
        OperatorSpec.from_key(key)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (7, 11)])
def test_macs_of_a_cells_operator_are_what_torch_counts(operator, stride, size):
    spec = a_spec(operator, height=size[0], width=size[1], stride=stride)

    assert spec.macs == counted_macs(build_operator(spec), *input_shapes(spec))
    assert spec.macs > 0


@pytest.mark.parametrize(
    "spec",
    [
        a_spec(Structure.STEM, c_in=3, c_out=16, height=70, width=93, stride=8),
        a_spec(Structure.POINTWISE),
        a_spec(Structure.PREDICTION),
        a_spec(Structure.UPSAMPLE, c_out=6, stride=2),
        a_spec(Structure.CONCAT),
        a_spec(Structure.NEIGHBOURS, c_out=6),
        a_spec(Operator.SKIP, c_out=6),
    ],
    ids=lambda spec: spec.key,
)
def test_macs_of_what_surrounds_the_cells_are_what_torch_counts(spec):
    assert spec.macs == counted_macs(build_operator(spec), *input_shapes(spec))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (90, 117), (101, 67)])
@pytest.mark.parametrize(
    "rows", [(), ("conv 8 2, skip 8 2",), ("skip 8 1, conv 8 2", "conv 8 1, conv 16 1, skip 32 2")]
)
def test_macs_of_a_network_are_what_torch_counts_at_any_size(rows, height, width):
    architecture = an_architecture(*rows)
    network = SegmentationNetwork(architecture, 5).eval()

    expected = counted_macs(network, (1, 3, height, width))

    assert total_macs(architecture, Resolution(height=height, width=width), 5) == expected


def test_table_7_has_27_77_gmacs():
    parts = Counter()
    for part, spec in architecture_specs(TABLE_7, FULL, 19):
        parts[part] += spec.macs

    assert {part: round(macs / 1e9, 2) for part, macs in parts.items()} == {
        "stem": 10.12,
        "cells": 6.57,
        "aggregation": 5.64,
        "prediction": 5.45,
    }
    assert parts.total() == 27_770_486_784


def test_torch_counts_the_same_macs_for_table_7():
    with torch.device("meta"):
        network = SegmentationNetwork(TABLE_7, 19).eval()
        assert counted_macs(network, (1, 3, 1024, 2048)) == 27_770_486_784


def test_shared_cells_are_executed_once():
    parts = Counter(part for part, _ in architecture_specs(TABLE_7, FULL, 19))

    assert parts["cells"] == 9 + 10 - 3


def test_the_papers_space_has_682_specs_of_which_625_are_cells():
    space = SearchSpace()
    specs = space_specs(space, FULL, 19)
    ratios, outputs = space.expansion_ratios, [(8, 1), (8, 2), (16, 1), (16, 2), (32, 1)]

    cells = {
        cell_spec(operator, rate=rate, stride=stride, ratio_in=ratio_in, ratio_out=ratio_out, resolution=FULL)
        for operator, (rate, stride), ratio_in, ratio_out in product(OPERATORS, outputs, ratios, ratios)
    }

    assert len(specs) == len(set(specs)) == 682
    assert len(cells & set(specs)) == len(cells) == 625


@pytest.mark.parametrize("pair", BRANCH_PAIRS)
@pytest.mark.parametrize("role", Role)
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_spaces_specs_cover_every_architecture_derived_from_it(role, pair, seed):
    space, resolution = a_search_space(num_layers=5), a_resolution(90, 117)
    covered = set(space_specs(space, resolution, 5))

    architecture = derive(a_relaxation(space, role, seed), pair).architecture

    assert {spec for _, spec in architecture_specs(architecture, resolution, 5)} <= covered


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_spaces_specs_cover_architectures_of_skips(seed):
    space, resolution = a_search_space(num_layers=5), a_resolution()
    covered = set(space_specs(space, resolution, 5))

    architecture = derive(a_certain_relaxation(space, seed=seed, operators=[Operator.SKIP]), (16, 32)).architecture

    assert {spec for _, spec in architecture_specs(architecture, resolution, 5)} <= covered
