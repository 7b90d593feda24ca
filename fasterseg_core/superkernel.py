"""Convolutions whose input and output width are slices of one kernel (sec. 3.1.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def superkernel(weight: Tensor, c_out: int, c_in: int) -> Tensor:
    """The first channels of a kernel on both sides: (C_out, C_in, k, k) -> (c_out, c_in, k, k).

    On a CPU the slice of a kernel that learns is a leaf of the graph, whose gradient goes straight into those channels
    of the kernel's own: autograd would fill two tensors of the kernel's size with zeros around each slice. So
    `backward` finds the gradient there, and `torch.autograd.grad` of the whole kernel does not.
    """
    if (c_out, c_in) == tuple(weight.shape[:2]):
        return weight  # an export then sees a constant and folds the batch norm into it
    learns = weight.is_leaf and weight.requires_grad and torch.is_grad_enabled()
    if weight.device.type != "cpu" or not learns:  # CUDA graphs know the gradients of a module's own parameters alone
        return weight[:c_out, :c_in]
    part = weight.detach()[:c_out, :c_in].requires_grad_()
    part.register_post_accumulate_grad_hook(partial(_into_whole, weight))  # type: ignore[no-untyped-call]
    return part


def _into_whole(weight: Tensor, part: Tensor) -> None:
    """Moves the gradient of a kernel's first channels into the kernel's."""
    assert part.grad is not None, "called after it was accumulated"
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    weight.grad[: part.shape[0], : part.shape[1]] += part.grad
    part.grad = None


class PaddedNorm(NamedTuple):
    """A batch norm at the widest width, (C,) each: zeros beyond the width in use; `mean`, `variance` are written to."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class PaddedWidth:
    """A width that a pass does not know: its maps have the widest's channels, zeros beyond those in use.

    The zeros come from the norms, whose scale and shift are zero there, so nothing flows back through them either.

    Attributes:
        norms: of each `SuperConvBN`.
        orders: of each module that concatenates halves, (C,): the channels that bring those in use to the front.
    """

    norms: Mapping[nn.Module, PaddedNorm]
    orders: Mapping[nn.Module, Tensor]


OutputWidth = int | PaddedWidth


class SuperConvBN(nn.Module):
    """A convolution without bias and a batch norm, at any of several output widths.

    The channels in use are the first ones of the kernel, on both sides; each output width has a batch norm of its own,
    since its statistics differ. With one output width this is an ordinary convolution and batch norm.
    """

    def __init__(self, c_in: int, widths_out: Sequence[int], kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.widths_out = tuple(widths_out)
        self.conv = nn.Conv2d(c_in, max(widths_out), kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in self.widths_out)

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """(B, c, H, W) -> (B, c_out, ceil(H / stride), ceil(W / stride)), with c at most the kernel's input width."""
        width = c_out if isinstance(c_out, int) else self.conv.out_channels
        weight = superkernel(self.conv.weight, width, x.shape[1])
        x = F.conv2d(x, weight, stride=self.conv.stride, padding=self.conv.padding)
        if isinstance(c_out, PaddedWidth):
            scale, shift, mean, variance = c_out.norms[self]
            return F.batch_norm(x, mean, variance, scale, shift, training=True, momentum=1.0)
        norm: Tensor = self.norms[self.widths_out.index(c_out)](x)
        return norm
