from pathlib import Path

import pytest
import torch

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.published import read_relaxation
from fasterseg_core.reference_rule import derive_by_reference
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS, Operator, SearchSpace
from tests.builders import a_published_search, a_relaxation, a_search_space

REAL = Path(__file__).parents[3] / "shared" / "data" / "fasterseg-official" / "arch_1.pt"
CONV, SKIP = Operator.CONV, Operator.SKIP


def a_relaxation_of(operator, role=Role.STUDENT, num_layers=9):
    """Every cell prefers one operator, and conv next; beta is uniform."""
    relaxation = Relaxation(a_search_space(num_layers=num_layers), role)
    for rows in relaxation.alpha.values():
        prefer(rows, operator)
    return relaxation


def prefer(rows, operator, by=2.0):
    with torch.no_grad():
        rows.zero_()
        rows[..., OPERATORS.index(CONV)] = 1.0
        rows[..., OPERATORS.index(operator)] = by


def set_down(relaxation, rate, probabilities):
    """beta0 of rows; the others stay at a tenth."""
    rows = relaxation.beta[str(rate)]
    with torch.no_grad():
        rows.copy_(torch.tensor([0.1, 0.9]).log())
        for row, probability in probabilities.items():
            rows[row] = torch.tensor([probability, 1 - probability]).log()


def rates(derivation, branch):
    return [cell.downsample_rate for cell in derivation.architecture.branches[branch].cells]


def operators(branch):
    return [cell.operator for cell in branch.cells]


def test_the_branch_of_16_goes_down_one_layer_before_the_place_of_its_row():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {3: 0.8})  # cell (16, 5)

    assert rates(derive(relaxation, (8, 16)), 1) == [8] * 5 + [16] * 4
    assert rates(derive_by_reference(relaxation, (8, 16)), 1) == [8] * 4 + [16] * 5


def test_the_branch_of_16_reads_neither_the_first_row_nor_the_last():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {0: 0.9, 2: 0.5, 6: 0.9})

    assert rates(derive_by_reference(relaxation, (8, 16)), 1) == [8] * 3 + [16] * 6


def test_the_branch_of_32_reads_its_rows_where_they_stand():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {1: 0.8})  # cell (16, 3)
    set_down(relaxation, 32, {4: 0.8})  # cell (32, 7)

    for rule in (derive, derive_by_reference):
        assert rates(rule(relaxation, (8, 32)), 1) == [8] * 3 + [16] * 4 + [32] * 2


def test_the_branch_of_32_reads_neither_the_first_row_of_16_nor_the_last_of_32():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {0: 0.99, 1: 0.8})
    set_down(relaxation, 32, {3: 0.8, 5: 0.99})

    assert rates(derive_by_reference(relaxation, (8, 32)), 1) == [8] * 3 + [16] * 3 + [32] * 3


def test_the_branch_of_32_keeps_three_cells_at_16():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {2: 0.99})
    set_down(relaxation, 32, {2: 0.99, 4: 0.5})

    assert rates(derive_by_reference(relaxation, (8, 32)), 1).count(16) == 3
    assert rates(derive(relaxation, (8, 32)), 1).count(16) == 1


def test_beta_is_normalised_again_for_each_branch():
    """.52 x .53 is more than .3 x .9, but less once both are normalised twice more: .256 and .268."""
    relaxation = a_relaxation_of(CONV, num_layers=10)
    set_down(relaxation, 16, {2: 0.3, 3: 0.52})
    set_down(relaxation, 32, {4: 0.9, 5: 0.53})  # rows 3 and 4 together leave fewer than three cells at 16

    assert rates(derive_by_reference(relaxation, (8, 32)), 1) == [8] * 4 + [16] * 3 + [32] * 3


def test_no_skip_stays_and_the_least_depth_is_kept():
    relaxation = a_relaxation_of(SKIP)

    for pair in BRANCH_PAIRS:
        for branch in derive_by_reference(relaxation, pair).architecture.branches:
            assert SKIP not in operators(branch)
            assert len(branch.cells) >= 3 + 2 * (8, 16, 32).index(branch.downsample_rate)


@pytest.mark.parametrize("seed", range(20))
def test_any_search_gives_two_branches_without_skips(seed):
    derivation = derive_by_reference(a_relaxation(a_search_space(num_layers=12), seed=seed), (16, 32))

    assert derivation.architecture.rates == (16, 32)
    assert all(SKIP not in operators(branch) for branch in derivation.architecture.branches)
    assert all(layers == tuple(sorted(layers)) for layers in derivation.layers)


def test_a_run_of_skips_after_a_downsampling_keeps_the_least_confident():
    relaxation = a_relaxation_of(CONV)
    set_down(relaxation, 16, {5: 0.8})  # down after layer 5: layers 6, 7, 8 at 16
    for layer, by in ((6, 3.0), (7, 1.5), (8, 2.0)):
        prefer(relaxation.alpha["16"][layer - 1], SKIP, by)

    derivation = derive_by_reference(relaxation, (8, 16))

    assert derivation.layers[1] == (0, 1, 2, 3, 4, 5, 7)
    assert operators(derivation.architecture.branches[1]) == [CONV] * 7


def test_a_skip_once_refused_stays_refused_for_the_branches_that_follow():
    """Branch 8 may shrink six of nine skips; the three that stay become convs, in the branches of 16 and 32 too."""
    relaxation = a_relaxation_of(CONV)
    for layer in range(9):
        prefer(relaxation.alpha["8"][layer], SKIP, 2 + layer / 10)
    set_down(relaxation, 16, {5: 0.8})

    derivation = derive_by_reference(relaxation, (8, 16))

    assert derivation.layers == ((0, 1, 2), (0, 1, 2, 5, 6, 7, 8))


def test_the_teacher_takes_no_skips_and_the_widest_ratio():
    derivation = derive_by_reference(a_relaxation_of(SKIP, Role.TEACHER), (16, 32))

    cells = [cell for branch in derivation.architecture.branches for cell in branch.cells]
    assert len(cells) == 18
    assert {(cell.operator, cell.expansion_ratio) for cell in cells} == {(CONV, 3)}


def test_a_lattice_too_short_for_the_rule_is_refused():
    with pytest.raises(ValueError, match="needs 8 layers, the lattice has 7"):
        derive_by_reference(Relaxation(a_search_space(num_layers=7), Role.STUDENT), (16, 32))


def test_the_relaxation_stays_as_it_is():
    relaxation = a_relaxation_of(SKIP)
    before = {name: value.clone() for name, value in relaxation.state_dict().items()}

    derive_by_reference(relaxation, (16, 32))

    assert all(torch.equal(value, before[name]) for name, value in relaxation.state_dict().items())


def test_a_file_of_the_published_format_derives_as_what_it_was_written_from(tmp_path):
    relaxation = a_relaxation(SearchSpace(), seed=3)
    torch.save(a_published_search(relaxation), tmp_path / "arch_1.pt")

    imported = read_relaxation(tmp_path / "arch_1.pt")

    assert derive_by_reference(imported, (16, 32)) == derive_by_reference(relaxation, (16, 32))


@pytest.mark.skipif(not REAL.exists(), reason=f"no published parameters at {REAL}")
def test_the_published_parameters_derive_table_7_exactly():
    relaxation = read_relaxation(REAL)

    assert derive_by_reference(relaxation, (16, 32)).architecture == TABLE_7
    assert derive(relaxation, (16, 32)).architecture != TABLE_7
