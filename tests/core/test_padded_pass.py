"""A padded pass against the pass at its widths: logits, gradients and statistics. On CUDA it is captured as a graph."""

import pytest
import torch
from torch import Tensor

from fasterseg_core.blocks import with_random_norms
from fasterseg_core.config import Role
from fasterseg_core.padded_pass import PaddedPass
from fasterseg_core.relaxation import Relaxation, Widths, random_widths, sampled_widths
from fasterseg_core.supernet import Supernet
from tests.builders import a_relaxation, a_search_space

SPACE = a_search_space(num_layers=4, expansion_ratios=(1, 2, 3), student_ratio=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_supernet() -> Supernet:
    torch.manual_seed(0)
    return with_random_norms(Supernet(SPACE, 3), 0).train()


def drawn(relaxation: Relaxation, sampled: bool) -> Widths:
    if sampled:
        return sampled_widths(relaxation, 1.0, seeded(5))
    return random_widths(SPACE, relaxation.end_ratio, seeded(5))


def images() -> Tensor:
    return torch.randn(2, 3, 71, 90, generator=seeded(7))


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sampled", [True, False])
def test_a_padded_pass_is_the_pass_at_its_widths(sampled):
    expected, relaxation = a_supernet(), a_relaxation(SPACE, Role.STUDENT)
    supernet, relaxed = a_supernet(), a_relaxation(SPACE, Role.STUDENT)
    padded = PaddedPass(supernet, Role.STUDENT, SPACE.student_ratio)

    widths = drawn(relaxation, sampled)
    logits = expected(images(), Role.STUDENT, relaxation.probabilities(), widths)
    torch.stack([value.square().mean() for value in logits.values()]).sum().backward()
    widths = drawn(relaxed, sampled)
    ours = padded(images(), *relaxed.probabilities().rows, *padded.inputs(widths))
    torch.stack([value.square().mean() for value in ours]).sum().backward()
    padded.keep_statistics(widths)

    assert len({width.ratio for width in widths.connections.values()}) > 1
    torch.testing.assert_close(list(ours), list(logits.values()))
    for name, value in expected.named_buffers():
        torch.testing.assert_close(supernet.get_buffer(name), value, msg=lambda m, name=name: f"{name}: {m}")
    for module, plain in ((supernet, expected), (relaxed, relaxation)):
        actual, wanted = gradients(module), gradients(plain)
        assert actual.keys() == wanted.keys()
        largest = max(float(gradient.abs().max()) for gradient in wanted.values())
        for name, gradient in wanted.items():
            torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)
