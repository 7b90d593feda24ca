"""Supernet passes of one width as CUDA graphs, launched at once, not kernel by kernel; sampled ones run as they are."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.relaxation import Probabilities, Widths
from fasterseg_core.supernet import Supernet


class FixedPass(nn.Module):
    """A supernet pass of one role at given widths, a function of tensors alone."""

    def __init__(self, supernet: Supernet, role: Role, widths: Widths) -> None:
        super().__init__()
        self.supernet, self.role, self.widths = supernet, role, widths

    def forward(self, images: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) and the rows of alpha at 8, 16, 32 and of beta at 16, 32 -> the logits in their order."""
        alpha, beta = dict(zip((8, 16, 32), rows[:3], strict=True)), dict(zip((16, 32), rows[3:], strict=True))
        logits = self.supernet(images, self.role, Probabilities(alpha=alpha, beta=beta, gamma={}), self.widths)
        return tuple(logits.values())


class GraphedSupernet:
    """Called as the supernet is, with the same results and gradients; each new shape of pass is captured first."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self._passes: dict[tuple[object, ...], Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(
        self, images: Tensor, role: Role, probabilities: Probabilities, widths: Widths
    ) -> dict[tuple[int, ...], Tensor]:
        """See `Supernet.forward`."""
        ratios = {width.ratio for width in widths.connections.values()}
        if len(ratios) > 1 or any(width.score is not None for width in widths.connections.values()):
            logits: dict[tuple[int, ...], Tensor] = self.supernet(images, role, probabilities, widths)
            return logits
        rows = (*probabilities.alpha.values(), *probabilities.beta.values())
        learns_weights = next(self.supernet.parameters()).requires_grad
        key = (role, ratios.pop(), learns_weights, tuple(images.shape))
        if key not in self._passes:
            self._passes[key] = _captured(FixedPass(self.supernet, role, widths), images, rows)
        return dict(zip(self.supernet.outputs, self._passes[key](images, *rows), strict=True))


def _captured(fixed_pass: FixedPass, images: Tensor, rows: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The pass as a graph; the batch norms' statistics, which warming up moves, are put back."""
    statistics = {name: value.clone() for name, value in fixed_pass.named_buffers()}
    samples = (images.clone(), *(row.detach().clone().requires_grad_(row.requires_grad) for row in rows))
    graphed = torch.cuda.make_graphed_callables(fixed_pass, samples, allow_unused_input=True)
    for name, value in fixed_pass.named_buffers():
        value.copy_(statistics[name])
    return cast(Callable[..., tuple[Tensor, ...]], graphed)
