"""Supernet passes as CUDA graphs, launched at once, not kernel by kernel.

One graph for each ratio that all connections share, and one, padded, for any others.
"""

from collections.abc import Callable
from copy import copy
from typing import cast

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.padded_pass import PaddedPass
from fasterseg_core.relaxation import Probabilities, Widths
from fasterseg_core.supernet import Supernet


class FixedPass(nn.Module):
    """A supernet pass of one role at given widths, a function of tensors alone."""

    def __init__(self, supernet: Supernet, role: Role, widths: Widths) -> None:
        super().__init__()
        self.supernet, self.role, self.widths = supernet, role, widths

    def forward(self, images: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) and `Probabilities.rows` -> the logits in their order."""
        logits = self.supernet(images, self.role, Probabilities.of_rows(rows), self.widths)
        return tuple(logits.values())


class GraphedSupernet:
    """Called as the supernet is, with the same results and gradients; each new shape of pass is captured first.

    Autograd's leaves are those of the capture, made on its stream: torch warns of it, and waits for that stream.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self._padded: dict[tuple[Role, int], PaddedPass] = {}
        self._captured: dict[tuple[object, ...], Callable[..., tuple[Tensor, ...]]] = {}
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def __call__(
        self, images: Tensor, role: Role, probabilities: Probabilities, widths: Widths
    ) -> dict[tuple[int, ...], Tensor]:
        """See `Supernet.forward`."""
        rows = probabilities.rows
        ratios = {width.ratio for width in widths.connections.values()}
        if len(ratios) == 1 and all(width.score is None for width in widths.connections.values()):
            logits = self._replay((role, *ratios), FixedPass(self.supernet, role, widths), images, *rows)
        else:
            padded = self._padded_pass(role, widths.end_ratio)
            logits = self._replay((role, "any"), padded, images, *rows, *padded.inputs(widths))
            padded.keep_statistics(widths)
        return dict(zip(self.supernet.outputs, logits, strict=True))

    def _padded_pass(self, role: Role, end_ratio: int) -> PaddedPass:
        if (role, end_ratio) not in self._padded:
            self._padded[role, end_ratio] = PaddedPass(self.supernet, role, end_ratio)
        return self._padded[role, end_ratio]

    def _replay(self, name: tuple[object, ...], module: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
        learns_weights = next(self.supernet.parameters()).requires_grad
        key = (*name, learns_weights, *((tensor.shape, tensor.requires_grad) for tensor in tensors))
        if key not in self._captured:
            self._captured[key] = _capture(module, tensors)
        return self._captured[key](*tensors)


def _capture(module: nn.Module, tensors: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The pass as a graph; the batch norms' statistics, which warming up moves, are put back."""
    statistics = {name: value.clone() for name, value in module.named_buffers()}
    samples = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors)
    itself = copy(module)  # whose forward becomes the graph's
    graphed = torch.cuda.make_graphed_callables(itself, samples, allow_unused_input=True)
    for name, value in module.named_buffers():
        value.copy_(statistics[name])
    return cast(Callable[..., tuple[Tensor, ...]], graphed)
