from itertools import product

import pytest

from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS, Resolution, SearchSpace
from tests.builders import a_search_space

PAPER = SearchSpace()


def test_operators_are_in_the_order_of_alphas_columns():
    assert [operator.value for operator in OPERATORS] == ["skip", "conv", "conv_x2", "zoomed_conv", "zoomed_conv_x2"]


def test_the_papers_lattice_has_45_cells():
    cells = list(PAPER.cells())

    assert len(cells) == 45
    assert [sum(rate == s for rate, _ in cells) for s in (8, 16, 32)] == [16, 15, 14]


def test_the_papers_lattice_has_74_mixed_operators():
    outputs = {s: sum(len(PAPER.strides(s, layer)) for rate, layer in PAPER.cells() if rate == s) for s in (8, 16, 32)}

    assert outputs == {8: 31, 16: 29, 32: 14}
    assert sum(outputs.values()) == 74


def test_only_a_scales_first_cell_has_one_input():
    one_input = [cell for cell in PAPER.cells() if not PAPER.has_two_inputs(*cell)]

    assert one_input == [(8, 0), (8, 1), (16, 1), (8, 2), (32, 2), *((8, layer) for layer in range(3, 16))]


def test_the_last_layer_and_the_coarsest_scale_have_no_stride_2():
    assert PAPER.strides(8, 0) == PAPER.strides(16, 14) == (1, 2)
    assert PAPER.strides(8, 15) == PAPER.strides(16, 15) == PAPER.strides(32, 2) == (1,)


def test_a_path_goes_down_step_by_step_through_cells_that_exist():
    space = a_search_space(num_layers=4)

    assert list(space.paths(8)) == [(8, 8, 8, 8)]
    assert set(space.paths(16)) == {(8, 16, 16, 16), (8, 8, 16, 16), (8, 8, 8, 16)}
    assert set(space.paths(32)) == {(8, 16, 32, 32), (8, 16, 16, 32), (8, 8, 16, 32)}


def test_the_papers_lattice_has_1695_paths():
    enumerated = [len(list(product(PAPER.paths(a), PAPER.paths(b)))) for a, b in BRANCH_PAIRS]

    assert enumerated == [15, 105, 1575]
    assert sum(enumerated) == PAPER.count_paths() == 1695


@pytest.mark.parametrize("num_layers", [3, 4, 7])
def test_counted_paths_are_the_enumerated_ones(num_layers):
    space = a_search_space(num_layers=num_layers)

    assert space.count_paths() == sum(len(list(space.paths(a))) * len(list(space.paths(b))) for a, b in BRANCH_PAIRS)


def test_the_papers_space_has_3_4e55_combinations():
    assert f"{PAPER.count_combinations():.1e}" == "3.4e+55"


def test_every_stride_rounds_a_map_up():
    resolution = Resolution(height=90, width=117)

    assert [resolution.at(rate) for rate in (1, 2, 8, 16, 32)] == [(90, 117), (45, 59), (12, 15), (6, 8), (3, 4)]


@pytest.mark.parametrize(("height", "width", "message"), [(63, 640, "height 63"), (640, 63, "width 63")])
def test_an_image_too_small_for_scale_32_is_refused_by_name(height, width, message):
    with pytest.raises(ValueError, match=f"{message} is too small for scale 32: use 64 or more"):
        Resolution(height=height, width=width)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 2}, "num_layers is 2"),
        ({"expansion_ratios": ()}, "expansion_ratios"),
        ({"expansion_ratios": (2, 1)}, "distinct and increasing"),
        ({"expansion_ratios": (2, 2)}, "distinct and increasing"),
        ({"expansion_ratios": (0, 2)}, "must lie between 1 and 256"),
        ({"student_ratio": 5}, "student_ratio 5"),
    ],
)
def test_an_impossible_space_is_refused_by_the_name_of_its_field(changes, message):
    with pytest.raises(ValueError, match=message):
        a_search_space(**changes)
