import weakref

import pytest
import torch

from fasterseg_core.config import Arithmetic, Role
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.cuda_graphs import FixedPass
from fasterseg_core.datasets.batches import Batch
from fasterseg_core.relaxation import fixed_widths
from fasterseg_core.reports import DivergedError
from tests.builders import a_latency_table, a_search_config, a_search_space
from tests.core import plain_cosearch

CPU = torch.device("cpu")
SPACE = a_search_space(num_layers=5, expansion_ratios=(1, 2, 3), student_ratio=2)


def models(**changes) -> CoSearch:
    """With scalars that are not uniform, so that every factor matters."""
    built = CoSearch(a_search_config(space=SPACE, **changes), a_latency_table(SPACE), CPU)
    for role in Role:
        for number, logits in enumerate(built.relaxations[role].parameters()):
            torch.nn.init.normal_(logits, generator=seeded(number))
    return built


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_batch(height: int = 71, width: int = 90, seed: int = 1) -> Batch:
    generator = seeded(seed)
    images = torch.randn(2, 3, height, width, generator=generator)
    return images, torch.randint(3, (2, height, width), generator=generator)


def recorded(models: CoSearch) -> list[dict[str, torch.Tensor]]:
    """The gradients that each update applies, filled as the optimisers step."""
    updates: list[dict[str, torch.Tensor]] = []

    def record(module: torch.nn.Module) -> None:
        updates.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})

    models.weight_optimizer.register_step_pre_hook(lambda *_: record(models.supernet))
    for role in Role:
        module = models.relaxations[role]
        models.architecture_optimizers[role].register_step_pre_hook(lambda *_, module=module: record(module))
    return updates


def assert_equal_updates(actual: list[dict[str, torch.Tensor]], expected: list[dict[str, torch.Tensor]]) -> None:
    """To a thousandth, and a hundred-thousandth of an update's largest entry: sums in another order, in float32."""
    assert len(actual) == len(expected)
    for ours, plain in zip(actual, expected, strict=True):
        assert ours.keys() == plain.keys()
        largest = max(float(gradient.abs().max()) for gradient in plain.values() if gradient.numel())
        for name, gradient in plain.items():
            torch.testing.assert_close(
                ours[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_a_pretraining_step_has_the_gradients_of_the_plain_implementation():
    fast, plain = models(), models()
    ours, expected = recorded(fast), recorded(plain)

    fast.pretrain_step(a_batch(), "here")
    plain_cosearch.pretrain_step(plain, a_batch())

    assert len(ours) == 1
    assert_equal_updates(ours, expected)


def test_each_of_the_four_updates_has_the_gradients_of_the_plain_implementation():
    fast, plain = models(), models()
    ours, expected = recorded(fast), recorded(plain)

    fast.search_step(a_batch(seed=1), a_batch(seed=2), 0.01, "here")
    plain_cosearch.search_step(plain, a_batch(seed=1), a_batch(seed=2), 0.01)

    assert len(ours) == 4
    assert_equal_updates(ours, expected)


def test_weights_after_several_steps_are_those_of_the_plain_implementation():
    fast, plain = models(), models()

    for seed in range(3):
        fast.search_step(a_batch(seed=seed), a_batch(seed=seed + 10), 0.01, "here")
        plain_cosearch.search_step(plain, a_batch(seed=seed), a_batch(seed=seed + 10), 0.01)

    for role in Role:
        for name, logits in fast.relaxations[role].named_parameters():
            expected = plain.relaxations[role].get_parameter(name)
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for name, weight in fast.supernet.named_parameters():
        expected = plain.supernet.get_parameter(name)
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_nothing_of_a_pass_lives_during_the_next_one(monkeypatch):
    """A CUDA graph cannot be captured while nodes of an earlier pass, made on another stream, are alive."""
    fast = models()
    losses: list[weakref.ref[torch.Tensor]] = []

    def forward(self: CoSearch, *arguments: object) -> torch.Tensor:
        assert all(loss() is None for loss in losses)
        loss = segmentation_loss(self, *arguments)
        losses.append(weakref.ref(loss))
        return loss

    segmentation_loss = CoSearch._segmentation_loss
    monkeypatch.setattr(CoSearch, "_segmentation_loss", forward)

    fast.pretrain_step(a_batch(), "here")
    fast.search_step(a_batch(seed=1), a_batch(seed=2), 0.01, "here")

    assert len(losses) == 4 + 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_update_that_is_not_finite_is_not_applied(value):
    diverging = models()
    weights = {name: p.detach().clone() for name, p in diverging.supernet.named_parameters()}
    images, labels = a_batch()
    images[0, 0, 0, 0] = value

    with pytest.raises(DivergedError, match="^pretrain epoch 2, step 3: the loss or gradient of the weights is not"):
        diverging.pretrain_step((images, labels), "pretrain epoch 2, step 3")

    assert all(torch.equal(p, weights[name]) for name, p in diverging.supernet.named_parameters())
    momenta = [state["momentum_buffer"] for state in diverging.weight_optimizer.state.values()]
    assert not any(momentum.any() for momentum in momenta)


def test_an_architecture_update_that_is_not_finite_is_not_applied():
    diverging = models()
    images, labels = a_batch()
    poisoned = (torch.full_like(images, float("nan")), labels)
    scalars = {name: p.detach().clone() for name, p in diverging.relaxations[Role.TEACHER].named_parameters()}

    with pytest.raises(DivergedError, match="^search epoch 1, step 1: .* of the teacher's architecture is not finite"):
        diverging.search_step(a_batch(), poisoned, 0.01, "search epoch 1, step 1")

    assert all(torch.equal(p, scalars[n]) for n, p in diverging.relaxations[Role.TEACHER].named_parameters())
    assert all(optimizer.state == {} for optimizer in diverging.architecture_optimizers.values())


def test_bf16_steps_follow_float32_ones():
    """In the mean of three steps: CPUs that emulate bf16 round in their own way, and a few scalars are a noisy sum."""
    similarities = []
    for seed in (1, 3, 5):
        full, half = models(), models(arithmetic=Arithmetic.BF16)
        expected, updates = recorded(full), recorded(half)

        losses = [m.search_step(a_batch(seed=seed), a_batch(seed=seed + 1), 0.01, "here") for m in (full, half)]

        assert losses[1].weight_loss == pytest.approx(losses[0].weight_loss, rel=0.02)
        assert losses[1].weight_loss != losses[0].weight_loss
        assert all(gradient.dtype is torch.float32 for ours in updates for gradient in ours.values())
        similarities.append([similarity(ours, exact) for ours, exact in zip(updates, expected, strict=True)])
    assert all(sum(of_update) / 3 > 0.8 for of_update in zip(*similarities, strict=True)), similarities


def similarity(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The cosine of the angle between two gradients."""
    flat, reference = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (first, second))
    return float(torch.cosine_similarity(flat, reference, dim=0))


@torch.no_grad()
@pytest.mark.parametrize("role", Role)
def test_a_fixed_pass_is_the_supernets(role):
    built, (images, _) = models(), a_batch()
    p, widths = built.relaxations[role].probabilities(), fixed_widths(SPACE, 3, built.relaxations[role].end_ratio)

    fixed = FixedPass(built.supernet, role, widths)(images, *p.rows)

    expected = built.supernet(images, role, p, widths)
    assert tuple(expected) == built.supernet.outputs
    for ours, logits in zip(fixed, expected.values(), strict=True):
        assert torch.equal(ours, logits)


def test_cuda_graphs_without_cuda_are_refused():
    with pytest.raises(ValueError, match="cuda_graphs needs a CUDA device, this one is cpu: set it to false"):
        models(cuda_graphs=True)
