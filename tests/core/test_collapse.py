from dataclasses import replace

import pytest
import torch

from fasterseg_core.collapse import Signs, signs_of_collapse, slope, warning
from fasterseg_core.config import Role
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import Operator
from tests.builders import a_certain_relaxation, a_search_space

SPACE = a_search_space(expansion_ratios=(1, 2, 3))
HEALTHY = Signs(alpha_entropy=0.98, skip_share=0.25, narrowest_share=0.4, latency_slope=-0.1, miou_slope=-0.01)


def test_a_search_that_begins_has_uniform_shares_and_no_slopes():
    signs = signs_of_collapse(Relaxation(SPACE, Role.STUDENT), [8.0], [0.2])

    assert signs.alpha_entropy == pytest.approx(1)
    assert signs.skip_share == pytest.approx(1 / 5)
    assert signs.narrowest_share == pytest.approx(1 / 3)
    assert (signs.latency_slope, signs.miou_slope) == (None, None)


def test_a_student_of_skips_alone_has_no_entropy():
    signs = signs_of_collapse(a_certain_relaxation(SPACE, operators=[Operator.SKIP]), [8.0], [0.2])

    assert (signs.alpha_entropy, signs.skip_share) == (0, 1)


def test_shares_are_means_over_all_cells():
    relaxation = Relaxation(SPACE, Role.STUDENT)
    rows = sum(len(logits) for logits in relaxation.alpha.values())
    with torch.no_grad():
        relaxation.alpha["8"][0] = torch.tensor([1e4, 0.0, 0.0, 0.0, 0.0])

    signs = signs_of_collapse(relaxation, [8.0], [0.2])

    assert signs.skip_share == pytest.approx((1 + (rows - 1) / 5) / rows)
    assert signs.alpha_entropy == pytest.approx((rows - 1) / rows)


def test_slopes_are_those_of_the_last_four_epochs():
    signs = signs_of_collapse(Relaxation(SPACE, Role.STUDENT), [50.0, 9.0, 8.0, 7.0, 6.0], [0.9, 0.1, 0.1, 0.2, 0.2])

    assert signs.latency_slope == pytest.approx(-1)
    assert signs.miou_slope == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([3.0], None), ([1.0, 3.0], 2.0), ([1.0, 1.0, 4.0], 1.5), ([2.0, 2.0], 0.0)]
)
def test_a_slope_is_the_least_squares_one(values, expected):
    assert slope(values) == expected


def test_a_healthy_search_is_not_warned_of():
    assert warning(HEALTHY, 3) is None


def test_falling_latency_and_miou_alone_are_no_collapse():
    assert warning(replace(HEALTHY, latency_slope=-2.0, miou_slope=-0.2), 3) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"skip_share": 0.61}, "skips at 61% (20% in a uniform choice)"),
        ({"narrowest_share": 0.7}, "widths at 70% (33%"),
    ],
)
def test_a_warning_names_the_sign_and_the_fix(changes, what):
    text = warning(replace(HEALTHY, **changes), 3)

    assert what in text
    assert "latency -0.10 ms and mIoU -1.0 points an epoch" in text
    assert "Lower latency_weight" in text


def test_a_single_width_is_no_sign():
    assert warning(replace(HEALTHY, narrowest_share=1.0), 1) is None


def test_what_counts_is_the_way_from_a_uniform_choice_to_a_certain_one():
    assert warning(replace(HEALTHY, narrowest_share=0.7), 2) is None
    assert warning(replace(HEALTHY, narrowest_share=0.7), 5) is not None


def test_the_first_epoch_of_a_collapse_has_no_slopes_to_tell():
    text = warning(replace(HEALTHY, skip_share=0.9, latency_slope=None, miou_slope=None), 3)

    assert "an epoch" not in text
    assert "entropy 98%" in text
