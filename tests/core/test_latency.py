from dataclasses import replace
from itertools import pairwise, product
from math import prod

import pytest
import torch

from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.latency import (
    SpaceLatency,
    balanced_weights,
    regularised_latency,
    relaxed_latency,
    sensitivities,
    space_latency,
)
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError
from fasterseg_core.operator_specs import (
    Structure,
    aggregation_specs,
    branch_cell_specs,
    cell_spec,
    prediction_specs,
    range_down,
    stem_spec,
)
from fasterseg_core.relaxation import Probabilities, Relaxation
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS
from tests.builders import (
    a_certain_relaxation,
    a_latency_table,
    a_relaxation,
    a_resolution,
    a_search_space,
    milliseconds_of,
)
from tests.core.naive import path_probability

SMALL = a_search_space(num_layers=4, expansion_ratios=(1, 2), student_ratio=2)
RESOLUTION = a_resolution()


def total(specs):
    return sum(milliseconds_of(spec) for spec in specs)


def ends_of(relaxation):
    end = relaxation.end_ratio
    return total([stem_spec(end, RESOLUTION), *prediction_specs(2, end, RESOLUTION, 3)])


def expected_branch(relaxation, rate):
    """The expectation over every path, operator and width, one network after the other."""
    space, p = relaxation.space, relaxation.probabilities()
    expectation = 0.0
    for path in space.paths(rate):
        reads = list(enumerate(path))
        on_path = float(path_probability(space, p.beta, path))
        for ratios in product(relaxation.ratios, repeat=space.num_layers - 1):
            widths = (relaxation.end_ratio, *ratios, relaxation.end_ratio)
            of_widths = prod(
                float(
                    p.gamma[path[layer]][layer - max(1, space.first_layer(path[layer])), relaxation.ratios.index(ratio)]
                )
                for layer, ratio in enumerate(ratios, start=1)
            )
            for operators in product(range(5), repeat=space.num_layers):
                of_operators = prod(
                    float(p.alpha[read][layer - space.first_layer(read), k])
                    for (layer, read), k in zip(reads, operators, strict=True)
                )
                cells = [
                    cell_spec(
                        OPERATORS[k],
                        rate=read,
                        stride=(*path[1:], rate)[layer] // read,
                        ratio_in=widths[layer],
                        ratio_out=widths[layer + 1],
                        resolution=RESOLUTION,
                    )
                    for (layer, read), k in zip(reads, operators, strict=True)
                ]
                expectation += on_path * of_widths * of_operators * total(cells)
            crossed = {read: layer for layer, (read, following) in enumerate(pairwise(path)) if read != following}
            for source in range_down(rate):
                channels = widths[crossed[source // 2]] * source // 2
                steps = aggregation_specs(source, channels, relaxation.end_ratio, RESOLUTION)
                expectation += on_path * of_widths * total(steps)
    return expectation


@torch.no_grad()
def test_the_relaxed_latency_is_the_expectation_over_every_network():
    relaxation = a_relaxation(a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=2))
    latency = space_latency(relaxation.space, relaxation, a_latency_table(relaxation.space))

    relaxed = relaxed_latency(relaxation.probabilities(), latency)

    branch = {rate: expected_branch(relaxation, rate) for rate in (8, 16, 32)}
    mean_pair = sum(branch[a] + branch[b] for a, b in BRANCH_PAIRS) / 3
    assert float(relaxed) == pytest.approx(ends_of(relaxation) + mean_pair, rel=1e-5)


@torch.no_grad()
def test_so_it_is_where_a_scale_is_entered_in_several_layers():
    relaxation = a_relaxation(SMALL, Role.TEACHER)
    latency = space_latency(SMALL, relaxation, a_latency_table(SMALL))

    relaxed = relaxed_latency(relaxation.probabilities(), latency)

    branch = {rate: expected_branch(relaxation, rate) for rate in (8, 16, 32)}
    mean_pair = sum(branch[a] + branch[b] for a, b in BRANCH_PAIRS) / 3
    assert float(relaxed) == pytest.approx(ends_of(relaxation) + mean_pair, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("role", Role)
def test_certain_choices_cost_what_the_derived_networks_do_without_sharing(role, seed):
    space = a_search_space(num_layers=6)
    relaxation = a_certain_relaxation(space, role, seed)

    relaxed = relaxed_latency(relaxation.probabilities(), space_latency(space, relaxation, a_latency_table(space)))

    def cost(branch):
        cells = list(branch_cell_specs(branch, relaxation.end_ratio, RESOLUTION))
        steps = [
            spec
            for source in range_down(branch.downsample_rate)
            for spec in aggregation_specs(
                source,
                branch.in_channels(branch.downsampling_index(source // 2), relaxation.end_ratio),
                relaxation.end_ratio,
                RESOLUTION,
            )
        ]
        return total([*cells, *steps])

    pairs = [sum(cost(b) for b in derive(relaxation, pair).architecture.branches) for pair in BRANCH_PAIRS]
    assert float(relaxed) == pytest.approx(ends_of(relaxation) + sum(pairs) / 3, rel=1e-5)


def doubles(latency):
    """The same numbers in float64, so that finite differences are sharp."""
    return replace(
        latency,
        cells={place: numbers.double() for place, numbers in latency.cells.items()},
        aggregation={rate: numbers.double() for rate, numbers in latency.aggregation.items()},
    )


def test_its_gradient_is_that_of_finite_differences():
    relaxation = a_relaxation(SMALL).double()
    latency = doubles(space_latency(SMALL, relaxation, a_latency_table(SMALL)))
    names = [name for name, _ in relaxation.named_parameters()]

    def of_logits(*logits):
        state = dict(zip(names, logits, strict=True))
        rows = {
            kind: {int(name.split(".")[1]): value.softmax(1) for name, value in state.items() if name.startswith(kind)}
            for kind in ("alpha", "beta", "gamma")
        }
        return relaxed_latency(Probabilities(**rows), latency)

    assert torch.autograd.gradcheck(of_logits, tuple(relaxation.parameters()))


def test_every_searched_row_moves_the_relaxed_latency():
    relaxation = a_relaxation()
    space = relaxation.space

    relaxed_latency(relaxation.probabilities(), space_latency(space, relaxation, a_latency_table(space))).backward()

    assert all((rows.grad.abs().sum(dim=1) > 0).all() for rows in relaxation.parameters())


def test_it_is_computed_where_the_relaxation_is():
    relaxation = a_relaxation(SMALL).to("meta")  # a device that no CPU tensor may be mixed with

    relaxed = relaxed_latency(relaxation.probabilities(), space_latency(SMALL, relaxation, a_latency_table(SMALL)))

    assert relaxed.device.type == "meta"


# ---- eq. 3 ----

THREE_LAYERS = a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=1)


def a_tiny_latency():
    """Operator k takes k ms, one more at stride 2, and `ratio out - 1` more: enough to compute by hand."""
    operators = torch.arange(5.0)
    cells = {
        (rate, stride): torch.stack([torch.stack([operators, operators + 1])] * 2) + (stride - 1)
        for rate, stride in ((8, 1), (8, 2), (16, 1), (16, 2), (32, 1))
    }
    aggregation = {16: torch.tensor([10.0, 20.0]), 32: torch.tensor([30.0, 30.0])}
    return SpaceLatency(space=THREE_LAYERS, cells=cells, aggregation=aggregation, stem=100.0, prediction=200.0, end=0)


def uniform_probabilities(beta=(0.5, 0.5), gamma=(0.5, 0.5)):
    def rows(count, values):
        return torch.tensor([values] * count, requires_grad=True)

    return Probabilities(
        alpha={8: rows(3, (0.2,) * 5), 16: rows(2, (0.2,) * 5), 32: rows(1, (0.2,) * 5)},
        beta={16: rows(1, beta), 32: torch.zeros(0, 2, requires_grad=True)},
        gamma={8: rows(2, gamma), 16: rows(2, gamma), 32: rows(1, gamma)},
    )


def test_the_relaxed_latency_of_a_tiny_table_by_hand():
    # Each of three cells takes 2 ms on average, each inner connection 0.25 more, each downsampling 1 more.
    # Branch 16 leaves 1/8 in layer 0 (beta 1: the stem's width, 10 ms) or in layer 1 (beta 0: 10 or 20 ms).
    branch_8 = 3 * 2 + 2 * 0.25
    branch_16 = 3 * 2 + 2 * 0.25 + 1 + 0.6 * 10 + 0.4 * (0.75 * 10 + 0.25 * 20)
    branch_32 = 3 * 2 + 2 * 0.25 + 2 + 30 + 10

    relaxed = relaxed_latency(uniform_probabilities((0.4, 0.6), (0.75, 0.25)), a_tiny_latency())

    assert float(relaxed.detach()) == pytest.approx(300 + 2 * (branch_8 + branch_16 + branch_32) / 3)


def test_equation_3_adds_the_weighted_latency_of_each_granularity():
    p, latency = uniform_probabilities(), a_tiny_latency()

    value = regularised_latency(p, latency, (0.001, 0.997, 0.002))

    assert float(value.detach()) == pytest.approx(float(relaxed_latency(p, latency).detach()))


def test_equation_3_is_its_three_terms_added_up():
    relaxation, weights = a_relaxation(SMALL), (0.5, 3.0, 7.0)
    latency = space_latency(SMALL, relaxation, a_latency_table(SMALL))
    parameters = [logits for logits in relaxation.parameters() if logits.numel()]

    def term(moving):
        rows = vars(relaxation.probabilities())
        fixed = {kind: {rate: row.detach() for rate, row in rows[kind].items()} for kind in rows if kind != moving}
        return relaxed_latency(Probabilities(**{**rows, **fixed}), latency)

    terms = sum(w * term(kind) for w, kind in zip(weights, ("alpha", "beta", "gamma"), strict=True))
    value = regularised_latency(relaxation.probabilities(), latency, weights)

    torch.testing.assert_close(value, terms)
    torch.testing.assert_close(torch.autograd.grad(value, parameters), torch.autograd.grad(terms, parameters))


def test_equation_3_weights_the_gradient_of_each_granularity_alone():
    p, latency = uniform_probabilities(), a_tiny_latency()
    searched = [p.alpha[8], p.beta[16], p.gamma[16]]

    plain = torch.autograd.grad(relaxed_latency(p, latency), searched)
    weighted = torch.autograd.grad(regularised_latency(p, latency, (0.5, 3.0, 7.0)), searched)

    for weight, before, after in zip((0.5, 3.0, 7.0), plain, weighted, strict=True):
        assert before.abs().sum() > 0
        torch.testing.assert_close(after, weight * before)


def test_sensitivities_are_the_gaps_between_the_slowest_and_the_fastest_choice():
    """Operator k takes k ms at ratio 1, twice that at ratio 2; whatever reads 1/16 takes half a millisecond more."""
    operators = torch.arange(5.0)
    cells = {place: torch.stack([torch.stack([operators, 2 * operators])] * 2) for place in a_tiny_latency().cells}
    latency = replace(a_tiny_latency(), cells={**cells, (16, 1): cells[16, 1] + 0.5})

    gaps = sensitivities(Relaxation(THREE_LAYERS, Role.STUDENT), latency)

    # Operators: 0 to 4 ms in the last cell, which writes ratio 1, and 0 to 8 ms in two others at the widest ratio.
    # Rates: only branch 16 has a choice, to leave 1/8 in layer 0 or 1: one or two cells read 1/16. It weighs 4 / 12.
    # Ratios: 2 ms on average, or 4, at two connections.
    assert gaps == pytest.approx((4 + 2 * 8, 0.5 * 4 / 12, 2 * 2), rel=1e-4)


def test_sensitivities_are_those_of_the_cells_alone():
    relaxation, latency = Relaxation(THREE_LAYERS, Role.STUDENT), a_tiny_latency()
    ends = replace(latency, stem=7.0, prediction=9.0, aggregation={16: torch.ones(2), 32: 5 * torch.ones(2)})

    assert sensitivities(relaxation, ends) == sensitivities(relaxation, latency)


def test_sensitivities_do_not_depend_on_where_the_search_stands():
    space = a_search_space()
    fresh, later = Relaxation(space, Role.STUDENT), a_relaxation(space)
    latency = space_latency(space, fresh, a_latency_table(space))

    assert sensitivities(later, latency) == sensitivities(fresh, latency)


def test_balanced_weights_of_table_2_corrected():
    assert balanced_weights((9.46, 0.71, 4.05)) == pytest.approx((0.060, 0.799, 0.141), abs=0.0015)


def test_balanced_weights_equalise_the_sensitivities_and_sum_to_1():
    gaps = (4.0, 2.0, 1.0)

    weights = balanced_weights(gaps)

    assert weights == pytest.approx((1 / 7, 2 / 7, 4 / 7))
    assert [w * gap for w, gap in zip(weights, gaps, strict=True)] == pytest.approx([4 / 7] * 3)


def test_a_granularity_without_influence_cannot_be_balanced():
    with pytest.raises(ValueError, match="give granularity_weights"):
        balanced_weights((1.0, 0.0, 1.0))


@pytest.mark.parametrize("structure", [Structure.STEM, Structure.PREDICTION, OPERATORS[1], OPERATORS[4]])
def test_a_table_that_lacks_an_operator_is_refused_by_its_key(structure):
    table = a_latency_table(SMALL)
    absent = next(spec for spec in table.rows if spec.operator is structure and spec.c_in in (3, 32))
    poorer = LatencyTable(table.fingerprint, {spec: row for spec, row in table.rows.items() if spec != absent})

    with pytest.raises(MissingLatencyError, match=f"has no entry for '{absent.key}'"):
        space_latency(SMALL, Relaxation(SMALL, Role.STUDENT), poorer)
