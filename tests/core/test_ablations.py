import pytest
import torch

from fasterseg_core.ablations import pruned, single_branch, trained_architecture
from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import PAPER_GRANULARITY_WEIGHTS, Pruning, RetrainConfig, Role
from fasterseg_core.retrain import Retrain
from fasterseg_core.search import Search
from tests.builders import (
    ColourBlocks,
    a_latency_table,
    a_retrain_config,
    a_search_config,
    a_search_space,
    an_architecture,
)


def test_nothing_changes_by_default():
    assert trained_architecture(RetrainConfig(), TABLE_7) == TABLE_7


@pytest.mark.parametrize(("rate", "kept"), [(16, 0), (32, 1)])
def test_a_branch_is_kept_as_it_is(rate, kept):
    alone = single_branch(TABLE_7, rate)

    assert alone.branches == (TABLE_7.branches[kept],)
    assert alone.stem_ratio == TABLE_7.stem_ratio


def test_a_pruned_teacher_keeps_its_operators_and_paths():
    teacher = an_architecture("conv 8 12, skip 8 12", "conv 8 12, zoomed_conv_x2 8 12, conv_x2 16 12", stem_ratio=12)

    slim = pruned(teacher, Pruning(expansion_ratio=4, end_ratio=8))

    assert slim == an_architecture("conv 8 4, skip 8 8", "conv 8 4, zoomed_conv_x2 8 4, conv_x2 16 8", stem_ratio=8)


def test_a_branch_can_be_pruned_too():
    config = RetrainConfig(branch=16, pruning=Pruning(expansion_ratio=4, end_ratio=8))

    slim = trained_architecture(config, TABLE_7)

    assert slim.rates == (16,)
    assert [cell.expansion_ratio for cell in slim.branches[0].cells] == [4] * 8 + [8]


def test_a_search_of_one_width_gives_the_first_rows_of_table_3():
    space = a_search_space(expansion_ratios=(2,), student_ratio=2)
    config = a_search_config(space=space, granularity_weights=PAPER_GRANULARITY_WEIGHTS, pretrain_epochs=0)
    data = ColourBlocks(num_images=8)
    search = Search(config, a_latency_table(space), data, torch.device("cpu"))
    list(search.run())

    derived = search.select(Role.STUDENT).derivation.architecture

    assert {cell.expansion_ratio for branch in derived.branches for cell in branch.cells} == {2}
    both = Retrain(a_retrain_config(epochs=1), derived, data, torch.device("cpu"))
    alone = Retrain(a_retrain_config(epochs=1, branch=derived.rates[-1]), derived, data, torch.device("cpu"))
    for retraining in (both, alone):
        list(retraining.run())
    assert len(both.best_network().architecture.branches) == 2
    assert len(alone.best_network().architecture.branches) == 1
