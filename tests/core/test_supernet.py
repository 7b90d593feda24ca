import pytest
import torch
import torch.nn.functional as F

from fasterseg_core.blocks import with_random_norms
from fasterseg_core.config import OhemConfig, Role
from fasterseg_core.derive import derive
from fasterseg_core.losses import ohem_cross_entropy
from fasterseg_core.operators import resize
from fasterseg_core.relaxation import Width, fixed_widths, random_widths, sampled_widths
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS, SearchSpace
from fasterseg_core.subnetwork import subnetwork
from fasterseg_core.supernet import MixedOperator, Supernet
from tests.builders import a_certain_relaxation, a_relaxation, a_search_space

NUM_CLASSES = 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def a_supernet(space=None, seed=0):
    torch.manual_seed(seed)
    return with_random_norms(Supernet(space or a_search_space(), NUM_CLASSES), seed)


def images(height=64, width=96, batch=1):
    return torch.randn(batch, 3, height, width, generator=seeded(7))


def by_hand(mixed, x, alpha, ratio):
    """Eq. 2: every operator at one width, weighted by alpha."""
    return sum(float(alpha[k]) * mixed.candidates[k](x, ratio * mixed.rate_out) for k in range(5))


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixed_operator_is_the_weighted_sum_of_its_operators(stride):
    torch.manual_seed(0)
    mixed = MixedOperator(a_search_space(), rate=8, stride=stride).eval()
    x, alpha = torch.randn(2, 16, 7, 9), torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])

    out = mixed(x, alpha, Width(3))

    assert out.shape == (2, 24 * stride, -(-7 // stride), -(-9 // stride))
    torch.testing.assert_close(out, by_hand(mixed, x, alpha, 3))


@torch.no_grad()
@pytest.mark.parametrize("role", Role)
def test_a_lattice_of_three_layers_computes_equations_1_and_2(role):
    space = a_search_space(num_layers=3)
    supernet, relaxation = a_supernet(space), a_relaxation(space, role)
    p, ends = relaxation.probabilities(), supernet.end_modules(role)
    widths = random_widths(space, relaxation.end_ratio, seeded(3))
    w = {place: width.ratio for place, width in widths.connections.items()}
    end, x = relaxation.end_ratio, images()

    logits = supernet(x, role, p, widths)

    def keep(rate, layer, x, ratio):
        return by_hand(supernet.cell(rate, layer).keep, x, p.alpha[rate][layer - space.first_layer(rate)], ratio)

    def down(rate, layer, x, ratio):
        return by_hand(supernet.cell(rate, layer).down, x, p.alpha[rate][layer - space.first_layer(rate)], ratio)

    x8_0 = ends.stem(x)
    x8_1, x16_1 = keep(8, 0, x8_0, w[8, 1]), down(8, 0, x8_0, w[16, 1])
    beta = p.beta[16][0]
    x8_2 = keep(8, 1, x8_1, w[8, 2])
    x16_2 = beta[0] * down(8, 1, x8_1, w[16, 2]) + beta[1] * keep(16, 1, x16_1, w[16, 2])
    x32_2 = down(16, 1, x16_1, w[32, 2])
    out = {8: keep(8, 2, x8_2, end), 16: keep(16, 2, x16_2, end), 32: keep(32, 2, x32_2, end)}
    # The head reads the last map at each finer rate: branch 16 left 1/8 in layer 1 (beta 0) or in layer 0 (beta 1).
    widest = max(x8_0.shape[1], x8_1.shape[1])
    filled = [F.pad(m, (0, 0, 0, 0, 0, widest - m.shape[1])) for m in (x8_1, x8_0)]
    finer = {8: {}, 16: {8: beta[0] * filled[0] + beta[1] * filled[1]}, 32: {16: x16_1, 8: x8_0}}
    aggregated = {rate: ends.aggregations[str(rate)](out[rate], finer[rate]) for rate in (8, 16, 32)}
    expected = {(rate,): resize(ends.singles[str(rate)](out[rate]), (8, 12)) for rate in (8, 16, 32)}
    expected |= {(a, b): ends.pairs[f"{a}+{b}"]([aggregated[a], aggregated[b]]) for a, b in BRANCH_PAIRS}
    assert logits.keys() == expected.keys()
    for branches, prediction in expected.items():
        torch.testing.assert_close(logits[branches], prediction, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 96), (90, 118), (71, 65)])
def test_every_prediction_is_at_an_eighth_of_any_image(height, width):
    space = a_search_space()
    supernet, relaxation = a_supernet(space), a_relaxation(space)

    logits = supernet(images(height, width), Role.STUDENT, relaxation.probabilities(), fixed_widths(space, 1, 2))

    assert set(logits) == {(8,), (16,), (32,), *BRANCH_PAIRS}
    assert {tuple(x.shape) for x in logits.values()} == {(1, NUM_CLASSES, -(-height // 8), -(-width // 8))}


def test_the_papers_supernet_has_74_mixed_operators_of_five_candidates():
    with torch.device("meta"):
        supernet = Supernet(SearchSpace(), 19)

    mixed = [module for module in supernet.modules() if isinstance(module, MixedOperator)]

    assert len(mixed) == 74
    assert {len(module.candidates) for module in mixed} == {len(OPERATORS)}


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("role", Role)
def test_certain_choices_give_the_derived_networks_outputs(role, seed):
    space = a_search_space(num_layers=6)
    supernet, relaxation = a_supernet(space, seed), a_certain_relaxation(space, role, seed)
    x, widths = images(71, 90), sampled_widths(relaxation, 1.0, seeded())

    inside = supernet(x, role, relaxation.probabilities(), widths)
    derived = {pair: subnetwork(supernet, role, derive(relaxation, pair)).eval()(x) for pair in BRANCH_PAIRS}

    for pair, logits in derived.items():
        torch.testing.assert_close(logits, resize(inside[pair], (71, 90)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pair", BRANCH_PAIRS)
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_certain_choices_of_one_width_give_the_derived_networks_outputs(ratio, pair):
    space = a_search_space(num_layers=6)
    supernet, relaxation = a_supernet(space, ratio), a_certain_relaxation(space, Role.STUDENT, ratio)
    for logits in relaxation.gamma.values():
        logits.fill_(-1e4)[:, relaxation.ratios.index(ratio)] = 0.0
    x, widths = images(71, 90), fixed_widths(space, ratio, space.student_ratio)

    inside = supernet(x, Role.STUDENT, relaxation.probabilities(), widths)[pair]
    derived = subnetwork(supernet, Role.STUDENT, derive(relaxation, pair)).eval()(x)

    torch.testing.assert_close(derived, resize(inside, (71, 90)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("role", Role)
def test_gradients_reach_every_row_of_alpha_beta_and_gamma(role):
    space = a_search_space()
    supernet, relaxation = a_supernet(space).train(), a_relaxation(space, role)
    labels = torch.randint(NUM_CLASSES, (2, 8, 12), generator=seeded())
    student = role is Role.STUDENT
    widths = sampled_widths(relaxation, 1.0, seeded()) if student else fixed_widths(space, 3, 3)

    logits = supernet(images(batch=2), role, relaxation.probabilities(), widths)
    torch.stack([ohem_cross_entropy(x, labels, OhemConfig()) for x in logits.values()]).sum().backward()

    searched = {name: logits for name, logits in relaxation.named_parameters() if student or "gamma" not in name}
    assert all((logits.grad.abs().sum(dim=1) > 0).all() for logits in searched.values())
    assert all(logits.grad is None for name, logits in relaxation.named_parameters() if name not in searched)


def test_a_cell_of_one_input_has_no_beta():
    space = a_search_space(num_layers=3)
    supernet, relaxation = a_supernet(space), a_relaxation(space)

    logits = supernet(images(), Role.STUDENT, relaxation.probabilities(), fixed_widths(space, 1, 2))

    assert len(relaxation.beta["16"]) == 1  # cell (16, 2); (16, 1) has one input
    assert len(relaxation.beta["32"]) == 0  # cell (32, 2) has one input
    (single_32,) = torch.autograd.grad(logits[32,].sum(), relaxation.beta["16"], allow_unused=True)
    assert single_32 is None  # nothing on the only path to (32, 2) has two inputs


@torch.no_grad()
def test_a_cell_of_two_inputs_mixes_them_before_its_operators():
    space = a_search_space(num_layers=3)
    supernet, relaxation = a_supernet(space), a_relaxation(space)
    calls = []
    supernet.cell(16, 2).keep.register_forward_hook(lambda *_: calls.append(1))

    supernet(images(), Role.STUDENT, relaxation.probabilities(), fixed_widths(space, 1, 2))

    assert len(calls) == 1


@torch.no_grad()
def test_teacher_and_student_share_the_cells_and_nothing_else():
    space = a_search_space(num_layers=3)
    supernet = a_supernet(space)

    student, teacher = supernet.end_modules(Role.STUDENT), supernet.end_modules(Role.TEACHER)

    assert student.stem[-1][0].out_channels == 16
    assert teacher.stem[-1][0].out_channels == 24
    assert not {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}
    assert len(supernet.cells) == 6
