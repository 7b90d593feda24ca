import pytest
import torch

from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.latency import balanced_weights, regularised_latency, relaxed_latency, sensitivities, space_latency
from fasterseg_core.latency_control import TOLERANCE, LatencyControl, is_within
from fasterseg_core.latency_table import estimate
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import BRANCH_PAIRS
from tests.builders import a_certain_relaxation, a_latency_table, a_relaxation, a_search_space

SPACE = a_search_space(num_layers=6, expansion_ratios=(1, 2, 3), student_ratio=2)
TABLE = a_latency_table(SPACE)
LATENCY = space_latency(SPACE, Relaxation(SPACE, Role.STUDENT), TABLE)
WEIGHTS = balanced_weights(sensitivities(Relaxation(SPACE, Role.STUDENT), LATENCY))


def a_control(target_ms=1.0):
    return LatencyControl(LATENCY, WEIGHTS, TABLE, target_ms)


FASTEST, SLOWEST = a_control().reachable(Relaxation(SPACE, Role.STUDENT))


def between(share):
    """A latency at this share of the way from the fastest to the slowest student."""
    return FASTEST + share * (SLOWEST - FASTEST)


def nearest_ms(relaxation, target_ms):
    return a_control(target_ms).nearest_ms(relaxation)


def test_the_tolerance_is_a_share_of_the_target():
    assert TOLERANCE == 0.05
    assert [is_within(ms, 10.0) for ms in (9.4, 9.6, 10.4, 10.6)] == [False, True, True, False]


def test_the_nearest_pair_counts():
    relaxation = a_relaxation(SPACE)
    times = sorted(estimate(derive(relaxation, pair).architecture, TABLE).milliseconds for pair in BRANCH_PAIRS)

    assert [nearest_ms(relaxation, ms) for ms in times] == times
    assert nearest_ms(relaxation, 1e3) == times[-1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_one_move_brings_a_student_that_has_taken_a_step_to_any_target(share, seed):
    relaxation, target_ms = a_relaxation(SPACE, seed=seed), between(share)
    with torch.no_grad():
        for logits in relaxation.parameters():
            logits *= 0.02
    before = nearest_ms(relaxation, target_ms)

    multiplier = a_control(target_ms).hold(relaxation)

    assert is_within(nearest_ms(relaxation, target_ms), target_ms)
    assert (multiplier > 0) == (before > target_ms * (1 + TOLERANCE))
    assert (multiplier < 0) == (before < target_ms * (1 - TOLERANCE))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_target_that_one_move_cannot_reach_is_approached(share):
    relaxation, target_ms = a_certain_relaxation(SPACE), between(share)
    before = nearest_ms(relaxation, target_ms)

    a_control(target_ms).hold(relaxation)

    assert abs(nearest_ms(relaxation, target_ms) - target_ms) <= abs(before - target_ms)


def test_a_student_within_the_tolerance_is_left_alone():
    relaxation = a_relaxation(SPACE)
    target_ms = nearest_ms(relaxation, 0.0) * 1.04
    before = {name: value.clone() for name, value in relaxation.state_dict().items()}

    assert a_control(target_ms).hold(relaxation) == 0
    assert all(torch.equal(value, before[name]) for name, value in relaxation.state_dict().items())


def test_a_move_goes_along_the_regularised_latency_by_each_probability():
    relaxation, target_ms = Relaxation(SPACE, Role.STUDENT), between(0.3)
    start = {name: value.clone() for name, value in relaxation.state_dict().items()}

    multiplier = a_control(target_ms).hold(relaxation)

    moved = {name: start[name] - value for name, value in relaxation.state_dict().items()}
    # By logits it is p * (cost - mean cost) of a row, and p is uniform: the moves, centred, over the row's length.
    fresh = Relaxation(SPACE, Role.STUDENT)
    regularised_latency(fresh.probabilities(), LATENCY, WEIGHTS).backward()
    for name, logits in fresh.named_parameters():
        centred = moved[name] - moved[name].mean(dim=1, keepdim=True)
        assert torch.allclose(centred / logits.shape[1], multiplier * logits.grad, atol=1e-6)


def test_a_move_changes_no_gradient_and_builds_no_graph():
    relaxation = a_relaxation(SPACE)

    a_control(between(0.2)).hold(relaxation)

    assert all(p.grad is None and p.requires_grad for p in relaxation.parameters())


def test_naive_weights_give_the_gradient_of_the_relaxed_latency():
    """Eq. 3 with w = (1, 1, 1): its value is three times the latency, its gradient exactly the latency's."""
    relaxation = a_relaxation(SPACE)

    naive = torch.autograd.grad(
        regularised_latency(relaxation.probabilities(), LATENCY, (1.0, 1.0, 1.0)), list(relaxation.parameters())
    )
    plain = torch.autograd.grad(relaxed_latency(relaxation.probabilities(), LATENCY), list(relaxation.parameters()))

    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(naive, plain, strict=True))


def test_no_random_student_is_much_faster_or_slower_than_the_range():
    times = [
        estimate(derive(a_relaxation(SPACE, seed=seed), pair).architecture, TABLE).milliseconds
        for seed in range(20)
        for pair in BRANCH_PAIRS
    ]

    assert FASTEST < 1.02 * min(times)
    assert SLOWEST > max(times) / 1.02


def test_asking_for_the_range_moves_nothing():
    relaxation = Relaxation(SPACE, Role.STUDENT)

    a_control().reachable(relaxation)

    fresh = Relaxation(SPACE, Role.STUDENT).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in relaxation.state_dict().items())


@pytest.mark.parametrize("factor", [0.5, 0.94, 1.06, 2.0])
def test_a_target_out_of_reach_is_refused_with_the_range(factor):
    end = FASTEST if factor < 1 else SLOWEST

    with pytest.raises(ValueError, match=f"out of reach: .* between {FASTEST:.2f} and {SLOWEST:.2f} ms"):
        a_control(factor * end).require_reachable(Relaxation(SPACE, Role.STUDENT))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_target_within_reach_is_accepted(share):
    a_control(between(share)).require_reachable(Relaxation(SPACE, Role.STUDENT))


def test_a_granularity_of_weight_0_is_never_moved():
    relaxation = Relaxation(SPACE, Role.STUDENT)
    alone = (1.0, 0.0, 0.0)
    _, slowest = LatencyControl(LATENCY, alone, TABLE, 1.0).reachable(relaxation)

    LatencyControl(LATENCY, alone, TABLE, 2 * slowest).hold(relaxation)  # out of reach: every granularity is tried

    fresh = Relaxation(SPACE, Role.STUDENT).state_dict()
    assert all(torch.equal(v, fresh[n]) for n, v in relaxation.state_dict().items() if not n.startswith("alpha"))
