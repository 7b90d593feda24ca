"""The sizes of the paper's search: 252.06 M weights of the published supernet, 822 scalars of both architectures."""

import pytest
import torch
from torch import nn

from fasterseg_core.config import Role
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import DOWNSAMPLE_RATES, SearchSpace
from fasterseg_core.stem_head import BranchAggregation, Prediction, Stem
from fasterseg_core.supernet import Supernet

PAPER, NUM_CLASSES = SearchSpace(), 19
NORMS_OF_A_MIXED_OPERATOR = 7  # one or two in each of five operators


def weights(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def supernet():
    with torch.device("meta"):
        return Supernet(PAPER, NUM_CLASSES)


def published_ends(ratio):
    """Stem and head of one role in the published supernet, of this project's modules.

    Aggregations read maps of the last layer, hence of the head's ratio; five predictions, each after aggregation, the
    two of pairs without a fusion before them.
    """
    with torch.device("meta"):
        finer = {rate: ratio * rate for rate in DOWNSAMPLE_RATES}
        aggregations = [BranchAggregation(rate, ratio, finer) for rate in (16, 32)]
        predictions = [Prediction(8 * ratio * branches, NUM_CLASSES) for branches in (1, 1, 1, 2, 2)]
        return nn.ModuleList([Stem(8 * ratio), *aggregations, *predictions])


def test_the_published_supernet_has_252_06_m_weights(supernet):
    """Its cells are ours; each of its norms carries weights of the full width beside those of the five widths."""
    cells = weights(supernet.cells)
    unused = sum(
        2 * NORMS_OF_A_MIXED_OPERATOR * PAPER.teacher_ratio * rate * stride
        for rate, layer in PAPER.cells()
        for stride in PAPER.strides(rate, layer)
    )
    ends = sum(weights(published_ends(ratio)) for ratio in (PAPER.student_ratio, PAPER.teacher_ratio))

    assert (cells, unused, ends) == (248_439_296, 252_672, 3_364_526)
    assert cells + unused + ends == 252_056_494


def test_this_supernet_has_another_pair_wider_aggregations_and_predictions_of_each_scale(supernet):
    """254.73 M: 0.25 M unused weights fewer, and ends of 6.29 M for 3.36 M."""
    published = {role: published_ends(ratio) for role, ratio in ((Role.STUDENT, 8), (Role.TEACHER, 12))}
    ends = {role: supernet.end_modules(role) for role in Role}

    more = {
        role: {
            "aggregations": weights(ends[role].aggregations) - weights(published[role][1:3]),
            "singles": weights(ends[role].singles) - weights(published[role][3:6]),
            "pairs": weights(ends[role].pairs) - weights(published[role][6:]),
        }
        for role in Role
    }

    assert weights(supernet) == 254_732_052
    assert all(weights(ends[role].stem) == weights(published[role][0]) for role in Role)
    assert more == {
        Role.STUDENT: {"aggregations": 110_592, "singles": 668_928, "pairs": 200_083},
        Role.TEACHER: {"aggregations": 0, "singles": 1_501_056, "pairs": 447_571},
    }
    assert 252_056_494 - 252_672 + sum(sum(parts.values()) for parts in more.values()) == 254_732_052


def test_both_architectures_have_822_scalars():
    assert [weights(Relaxation(PAPER, role)) for role in (Role.STUDENT, Role.TEACHER)] == [499, 323]
