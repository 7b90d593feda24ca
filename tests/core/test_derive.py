"""Derivations of hand-made scalars; the lattices' rows are given as probabilities."""

import pytest
import torch

from fasterseg_core.config import Role
from fasterseg_core.derive import best_path, derive, target
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS, SearchSpace
from tests.builders import a_search_space

SKIP, CONV, CONV_X2, ZOOMED, ZOOMED_X2 = OPERATORS


def a_relaxation_of_convs(space, role=Role.STUDENT):
    """Every cell is most probably a conv, every width is undecided."""
    relaxation = Relaxation(space, role)
    for rows in relaxation.alpha.values():
        set_operators(rows, {CONV: 0.6})
    return relaxation


def set_operators(rows, probabilities):
    """Gives each named operator its probability, the others share what is left."""
    left = (1 - sum(probabilities.values())) / (len(OPERATORS) - len(probabilities))
    rows.data[:] = torch.tensor([probabilities.get(operator, left) for operator in OPERATORS]).log()


def beta_rows(*downsampling):
    """Rows whose column 0, the predecessor at s/2, has the given probabilities."""
    return torch.tensor([(p, 1 - p) for p in downsampling])


def operators(branch):
    return [cell.operator for cell in branch.cells]


def rates(branch):
    return [cell.downsample_rate for cell in branch.cells]


def test_a_path_enters_a_scale_where_beta_is_largest():
    beta = {16: beta_rows(0.6, 0.9, 0.7)}

    assert best_path(a_search_space(num_layers=5), beta, 16) == (8, 8, 8, 16, 16)


def test_a_scales_first_cell_counts_as_one_of_two_equals():
    space = a_search_space(num_layers=5)

    assert best_path(space, {16: beta_rows(0.4, 0.3, 0.49)}, 16) == (8, 16, 16, 16, 16)
    assert best_path(space, {16: beta_rows(0.4, 0.3, 0.51)}, 16) == (8, 8, 8, 8, 16)


def test_a_path_to_a_thirty_second_has_the_largest_joint_probability():
    # Entries into s = 16 at layers 1-4, into s = 32 at layers 2-4: alone both would be at layer 3, which cannot be.
    # (1, 3): .5 * .8 = .40, (2, 3): .4 * .8 = .32, (3, 4): .9 * .3 = .27.
    beta = {16: beta_rows(0.4, 0.9, 0.1), 32: beta_rows(0.8, 0.3)}

    assert best_path(a_search_space(num_layers=5), beta, 32) == (8, 16, 16, 32, 32)


def test_one_strong_downsampling_can_outweigh_the_other():
    beta = {16: beta_rows(0.4, 0.9, 0.1), 32: beta_rows(0.8, 0.6)}  # (3, 4): .54

    assert best_path(a_search_space(num_layers=5), beta, 32) == (8, 8, 8, 16, 32)


def test_equal_choices_stay_at_high_resolution():
    probabilities = Relaxation(a_search_space(num_layers=5), Role.STUDENT).probabilities()

    with torch.no_grad():
        assert best_path(a_search_space(num_layers=5), probabilities.beta, 16) == (8, 8, 8, 8, 16)
        assert best_path(a_search_space(num_layers=5), probabilities.beta, 32) == (8, 8, 8, 16, 32)


def test_every_cell_takes_its_most_probable_operator():
    space = a_search_space(num_layers=4)
    relaxation = a_relaxation_of_convs(space)
    set_operators(relaxation.alpha["8"][0], {CONV_X2: 0.5})
    set_operators(relaxation.alpha["8"][2], {ZOOMED: 0.5})
    set_operators(relaxation.alpha["16"][2], {ZOOMED_X2: 0.5})  # cell (16, 3)

    first, second = derive(relaxation, (8, 16)).architecture.branches

    assert operators(first) == [CONV_X2, CONV, ZOOMED, CONV]
    assert operators(second) == [CONV_X2, CONV, ZOOMED, ZOOMED_X2]
    assert rates(second) == [8, 8, 8, 16]


def test_every_connection_takes_its_most_probable_ratio_and_the_ends_take_the_students():
    space = a_search_space(num_layers=4, expansion_ratios=(1, 2, 3), student_ratio=2)
    relaxation = a_relaxation_of_convs(space)
    relaxation.gamma["8"].data = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 1]])  # into layers 1, 2, 3
    relaxation.gamma["16"].data = torch.tensor([[0.0, 1, 0], [0, 1, 0], [1, 0, 0]])

    architecture = derive(relaxation, (8, 16)).architecture

    first, second = architecture.branches
    assert [cell.expansion_ratio for cell in first.cells] == [3, 1, 3, 2]
    assert [cell.expansion_ratio for cell in second.cells] == [3, 1, 1, 2]  # cell 3 writes into (16, 3)
    assert (architecture.stem_ratio, architecture.head_ratio) == (2, 2)


def test_the_teacher_is_as_wide_as_can_be():
    architecture = derive(a_relaxation_of_convs(a_search_space(), Role.TEACHER), (16, 32)).architecture

    assert {cell.expansion_ratio for branch in architecture.branches for cell in branch.cells} == {3}
    assert architecture.stem_ratio == 3


def test_the_teacher_takes_the_second_best_where_a_skip_is_best():
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=4), Role.TEACHER)
    set_operators(relaxation.alpha["8"][1], {SKIP: 0.6, ZOOMED: 0.3})

    derivation = derive(relaxation, (8, 16))

    assert operators(derivation.architecture.branches[0]) == [CONV, ZOOMED, CONV, CONV]


def test_a_downsampling_takes_the_second_best_where_a_skip_is_best():
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=4))
    set_operators(relaxation.alpha["8"][2], {SKIP: 0.6, ZOOMED_X2: 0.3})  # branch 16 leaves 1/8 here, branch 8 stays

    first, second = derive(relaxation, (8, 16)).architecture.branches

    assert operators(first) == [CONV, CONV, CONV]
    assert operators(second) == [CONV, CONV, ZOOMED_X2, CONV]


def test_skips_are_shrunk_away():
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=6))
    for layer in (1, 3):
        set_operators(relaxation.alpha["8"][layer], {SKIP: 0.6})

    derivation = derive(relaxation, (8, 32))

    assert operators(derivation.architecture.branches[0]) == [CONV] * 4
    assert derivation.layers[0] == (0, 2, 4, 5)


def test_a_shrunk_skip_leaves_the_width_that_the_cell_before_it_wrote():
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=5))
    set_operators(relaxation.alpha["8"][2], {SKIP: 0.6})
    relaxation.gamma["8"].data = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])

    branch = derive(relaxation, (8, 16)).architecture.branches[0]

    assert [branch.in_channels(i, stem_ratio=2) for i in range(4)] == [16, 8, 24, 8]


def test_the_most_confident_skips_go_first_until_the_least_depth():
    # round(9 / 3) + 2 cells are the least for s = 16, whose branch has nine.
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=9))
    for layer, confidence in ((1, 0.9), (2, 0.6), (3, 0.8), (4, 0.5), (5, 0.7), (6, 0.55)):
        set_operators(relaxation.alpha["8"][layer], {SKIP: confidence})

    derivation = derive(relaxation, (8, 16))

    assert derivation.layers[1] == (0, 4, 6, 7, 8)
    assert operators(derivation.architecture.branches[1]) == [CONV, SKIP, SKIP, CONV, CONV]


def test_of_equally_confident_skips_the_first_goes_first():
    relaxation = a_relaxation_of_convs(a_search_space(num_layers=6))
    for layer in (1, 2, 3):
        set_operators(relaxation.alpha["8"][layer], {SKIP: 0.6})

    derivation = derive(relaxation, (8, 16))  # at least round(6 / 3) + 2 = 4 of the 6 cells of branch 16

    assert derivation.layers[1] == (0, 3, 4, 5)


def test_a_run_between_two_downsamplings_never_vanishes():
    space = a_search_space(num_layers=9)
    relaxation = a_relaxation_of_convs(space)
    relaxation.beta["16"].data = torch.eye(2)[[1, 0, 1, 1, 1, 1, 1]] * 9  # into 16 at layer 3
    relaxation.beta["32"].data = torch.eye(2)[[1, 1, 1, 0, 1, 1]] * 9  # into 32 at layer 6
    for layer, confidence in ((3, 0.9), (4, 0.6)):  # all cells of stride 1 between the two
        set_operators(relaxation.alpha["16"][layer - 1], {SKIP: confidence})

    derivation = derive(relaxation, (8, 32))

    branch = derivation.architecture.branches[1]
    assert derivation.layers[1] == (0, 1, 2, 4, 5, 6, 7, 8)
    assert [cell.operator for cell in branch.cells if cell.downsample_rate == 16] == [SKIP, CONV]


def test_only_skips_leave_the_branches_that_the_rules_demand():
    relaxation = Relaxation(a_search_space(num_layers=6), Role.STUDENT)
    for rows in relaxation.alpha.values():
        set_operators(rows, {SKIP: 0.6, ZOOMED: 0.3})

    by_rate = {
        branch.downsample_rate: branch
        for pair in BRANCH_PAIRS
        for branch in derive(relaxation, pair).architecture.branches
    }

    assert operators(by_rate[8]) == [SKIP, SKIP]  # round(6 / 3)
    assert operators(by_rate[16]) == [SKIP, SKIP, ZOOMED, SKIP]
    assert operators(by_rate[32]) == [SKIP, SKIP, SKIP, ZOOMED, ZOOMED, SKIP]


def test_branches_share_the_cells_of_equal_choices():
    space = a_search_space(num_layers=6)
    relaxation = a_relaxation_of_convs(space)
    relaxation.beta["32"].data = torch.eye(2)[[1, 0, 1]] * 9  # into 32 at layer 4
    relaxation.beta["16"].data = torch.eye(2)[[1, 0, 1, 0]] * torch.tensor([[9.0], [8], [9], [9]])  # at layers 5 and 3

    architecture = derive(relaxation, (16, 32)).architecture

    assert [rates(branch) for branch in architecture.branches] == [[8, 8, 8, 8, 8, 16], [8, 8, 8, 16, 32, 32]]
    assert architecture.num_shared_cells == 2  # the third has stride 1 in one branch, 2 in the other


def test_deriving_does_not_change_the_relaxation_nor_build_a_graph():
    relaxation = Relaxation(SearchSpace(), Role.STUDENT)
    before = {name: value.clone() for name, value in relaxation.state_dict().items()}

    derive(relaxation, (16, 32))

    assert all(torch.equal(value, before[name]) for name, value in relaxation.state_dict().items())
    assert all(p.grad is None for p in relaxation.parameters())


@pytest.mark.parametrize(
    ("slower", "expected"),
    [(2.0, 0.952638), (0.5, 1.049717)],  # 2 ** -.07, 2 ** .07
)
def test_the_target_of_equation_5(slower, expected):
    assert target(0.6, 8.3 * slower, -0.07) / target(0.6, 8.3, -0.07) == pytest.approx(expected, rel=1e-5)


def test_a_zero_exponent_looks_at_accuracy_alone():
    assert target(0.5, 100.0, 0.0) == 0.5
