import pytest
import torch

from fasterseg_core.config import Role
from fasterseg_core.relaxation import (
    Relaxation,
    connections,
    crossings,
    fixed_widths,
    random_widths,
    sampled_widths,
)
from fasterseg_core.search_space import SearchSpace
from tests.builders import a_certain_relaxation, a_relaxation, a_search_space
from tests.core.naive import path_probability


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_papers_student_has_the_published_shapes():
    relaxation = Relaxation(SearchSpace(), Role.STUDENT)

    assert {name: tuple(logits.shape) for name, logits in relaxation.named_parameters()} == {
        "alpha.8": (16, 5),
        "alpha.16": (15, 5),
        "alpha.32": (14, 5),
        "beta.16": (14, 2),
        "beta.32": (13, 2),
        "gamma.8": (15, 5),
        "gamma.16": (15, 5),
        "gamma.32": (14, 5),
    }
    assert all((logits == 1e-3).all() for logits in relaxation.parameters())
    assert relaxation.end_ratio == 8


def test_the_teachers_only_ratio_is_the_widest():
    relaxation = Relaxation(SearchSpace(), Role.TEACHER)

    assert relaxation.ratios == (12,)
    assert relaxation.end_ratio == 12
    assert {rows.shape[1] for rows in relaxation.gamma.values()} == {1}


@pytest.mark.parametrize("role", Role)
def test_every_row_sums_to_1(role):
    probabilities = a_relaxation(role=role).probabilities()

    for rows in (*probabilities.alpha.values(), *probabilities.beta.values(), *probabilities.gamma.values()):
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(len(rows)))
        assert (rows > 0).all()


def test_probabilities_are_the_softmax_of_the_logits():
    relaxation = a_relaxation()
    logits = relaxation.alpha["16"].detach()

    expected = logits.exp() / logits.exp().sum(dim=1, keepdim=True)

    torch.testing.assert_close(relaxation.probabilities().alpha[16].detach(), expected)


def test_every_cell_but_the_first_is_entered_by_a_connection_of_searched_width():
    space = a_search_space(num_layers=3)

    assert connections(space) == [(8, 1), (16, 1), (8, 2), (16, 2), (32, 2)]


def test_the_ends_have_a_width_of_their_own():
    space = a_search_space(num_layers=3)

    widths = fixed_widths(space, 1, end_ratio=3)

    assert [widths.into(rate, 2).ratio for rate in (8, 16, 32)] == [1, 1, 1]
    assert [widths.into(rate, 3).ratio for rate in (8, 16, 32)] == [3, 3, 3]


def test_random_widths_use_every_ratio_alike():
    space = a_search_space(num_layers=16)

    ratios = [
        random_widths(space, 2, seeded(seed)).into(rate, layer).ratio
        for seed in range(50)
        for rate, layer in connections(space)
    ]

    # 2200 draws: four standard deviations of a share of 1/3 are 0.04.
    assert [ratios.count(ratio) / len(ratios) for ratio in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.04)


def test_widths_follow_from_the_generators_seed():
    relaxation = a_relaxation()

    def draw(seed):
        widths = sampled_widths(relaxation, 1.0, seeded(seed))
        return [widths.into(*place).ratio for place in connections(relaxation.space)]

    assert draw(3) == draw(3)
    assert len({tuple(draw(seed)) for seed in range(10)}) > 1


def test_a_sampled_width_counts_fully_and_carries_a_gradient():
    relaxation = a_relaxation()

    widths = sampled_widths(relaxation, 1.0, seeded())

    scores = [widths.into(*place).score for place in connections(relaxation.space)]
    assert {float(score.detach()) for score in scores} == {1.0}
    torch.stack(scores).sum().backward()
    assert all((rows.grad.abs().sum(dim=1) > 0).all() for rows in relaxation.gamma.values())


def test_a_certain_gamma_has_a_finite_gradient():
    relaxation = a_certain_relaxation()

    widths = sampled_widths(relaxation, 1.0, seeded())
    torch.stack([widths.into(*place).score for place in connections(relaxation.space)]).sum().backward()

    assert all(rows.grad.isfinite().all() for rows in relaxation.gamma.values())


def test_ratios_are_sampled_as_often_as_gamma_says():
    relaxation = a_relaxation(a_search_space(num_layers=3))
    generator, draws = seeded(), 4000

    counts = torch.zeros(5, 3)
    for _ in range(draws):
        widths = sampled_widths(relaxation, 1.0, generator)
        for row, place in enumerate(connections(relaxation.space)):
            counts[row, relaxation.ratios.index(widths.into(*place).ratio)] += 1

    gamma = relaxation.probabilities().gamma
    expected = torch.stack([gamma[8][0], gamma[16][0], gamma[8][1], gamma[16][1], gamma[32][0]]).detach()
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() < 4 * deviation).all()


def test_the_gumbel_gradient_is_that_of_the_softened_sample():
    relaxation = Relaxation(a_search_space(num_layers=3, expansion_ratios=(1, 2)), Role.STUDENT)
    temperature = 2.0

    widths = sampled_widths(relaxation, temperature, seeded(5))
    widths.into(8, 1).score.backward()

    uniform = torch.rand(2, 2, generator=seeded(5), dtype=torch.float64)[0]  # of scale 8, the first drawn
    logits = relaxation.gamma["8"][0].detach() - torch.log(-torch.log(uniform)).float()
    soft = torch.softmax(logits / temperature, dim=0)
    chosen = int(soft.argmax())
    expected = soft[chosen] * (torch.eye(2)[chosen] - soft) / temperature
    assert relaxation.ratios[chosen] == widths.into(8, 1).ratio
    torch.testing.assert_close(relaxation.gamma["8"].grad[0], expected)


@pytest.mark.parametrize("num_layers", [3, 4, 6])
def test_crossings_are_the_probabilities_of_the_paths(num_layers):
    space = a_search_space(num_layers=num_layers)
    beta = a_relaxation(space, seed=num_layers).probabilities().beta

    crossed = crossings(space, beta)

    to_16, to_32 = torch.zeros(num_layers), torch.zeros(num_layers, num_layers)
    for path in space.paths(16):
        to_16[path.index(16) - 1] = path_probability(space, beta, path)
    for path in space.paths(32):
        to_32[path.index(16) - 1, path.index(32) - 1] = path_probability(space, beta, path)
    torch.testing.assert_close(crossed[16].detach(), to_16)
    torch.testing.assert_close(crossed[32].detach(), to_32)


def test_crossings_of_the_papers_lattice_sum_to_1():
    relaxation = a_relaxation(SearchSpace())

    crossed = crossings(relaxation.space, relaxation.probabilities().beta)

    assert float(crossed[16].sum().detach()) == pytest.approx(1)
    assert float(crossed[32].sum().detach()) == pytest.approx(1)


def test_certain_choices_cross_in_one_place():
    relaxation = a_certain_relaxation(a_search_space(num_layers=8))

    crossed = crossings(relaxation.space, relaxation.probabilities().beta)

    assert sorted(crossed[16].tolist())[-2:] == [0, 1]
    assert sorted(crossed[32].flatten().tolist())[-2:] == [0, 1]
