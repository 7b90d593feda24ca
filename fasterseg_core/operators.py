"""The five operators of a cell (sec. 3.1.2): one definition for search, retraining, profiling and export.

Zoomed operators work on a map of half the size, rounded up as strides round, so that every operator of a cell gives one
size whatever the image's (the published code rounds down and so needs multiples of 64).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasterseg_core.search_space import Operator
from fasterseg_core.superkernel import OutputWidth, SuperConvBN


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, the only interpolation of feature maps: (B, C, *, *) -> (B, C, *size)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Skip(nn.Module):
    """Skip connection at stride 1: 1x1 convolution, batch norm, ReLU, since the widths of its two sides may differ."""

    def __init__(self, c_in: int, widths_out: Sequence[int]) -> None:
        super().__init__()
        self.pointwise = SuperConvBN(c_in, widths_out, kernel_size=1)

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """(B, c, H, W) -> (B, c_out, H, W)."""
        return F.relu_(self.pointwise(x, c_out))


class IdentitySkip(nn.Module):
    """Skip connection of a derived network where both sides have the same shape."""

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """The map itself."""
        return x


class StridedSkip(nn.Module):
    """Skip connection at stride 2: two 1x1 convolutions, one shifted by a pixel, concatenated; batch norm, ReLU.

    Each half has its own batch norm, which is the same as one after the concatenation and folds into its convolution.
    """

    def __init__(self, c_in: int, widths_out: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in widths_out]
        self.even = SuperConvBN(c_in, halves, kernel_size=1, stride=2)
        self.odd = SuperConvBN(c_in, halves, kernel_size=1, stride=2)

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """(B, c, H, W) -> (B, c_out, ceil(H / 2), ceil(W / 2))."""
        height, width = x.shape[2], x.shape[3]
        shifted = x[:, :, 1:, 1:]
        if height % 2 or width % 2:
            shifted = F.pad(shifted, (0, width % 2, 0, height % 2))
        if isinstance(c_out, int):
            return F.relu_(torch.cat([self.even(x, c_out // 2), self.odd(shifted, c_out // 2)], dim=1))
        halves = torch.cat([self.even(x, c_out), self.odd(shifted, c_out)], dim=1)
        return F.relu_(halves.index_select(1, c_out.orders[self]))


class Conv(nn.Module):
    """One or two 3x3 convolutions, each with batch norm and ReLU; the first carries the stride."""

    def __init__(self, c_in: int, widths_out: Sequence[int], stride: int, num_convs: int) -> None:
        super().__init__()
        self.convs = _convolutions(c_in, widths_out, stride, num_convs)

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """(B, c, H, W) -> (B, c_out, ceil(H / stride), ceil(W / stride))."""
        for conv in self.convs:
            x = F.relu_(conv(x, c_out))
        return x


class ZoomedConv(nn.Module):
    """Bilinear downsampling, one or two 3x3 convolutions, bilinear upsampling, ReLU; stride 2 stays at half size."""

    def __init__(self, c_in: int, widths_out: Sequence[int], stride: int, num_convs: int) -> None:
        super().__init__()
        self.stride = stride
        self.convs = _convolutions(c_in, widths_out, 1, num_convs)

    def forward(self, x: Tensor, c_out: OutputWidth) -> Tensor:
        """(B, c, H, W) -> (B, c_out, ceil(H / stride), ceil(W / stride))."""
        height, width = x.shape[2], x.shape[3]
        x = resize(x, (-(-height // 2), -(-width // 2)))
        for i, conv in enumerate(self.convs):
            x = conv(F.relu_(x) if i else x, c_out)
        if self.stride == 1:
            x = resize(x, (height, width))
        return F.relu_(x)


def candidate(operator: Operator, c_in: int, widths_out: Sequence[int], stride: int) -> nn.Module:
    """An operator of the supernet: up to c_in channels in, any of widths_out out; called as operator(x, c_out)."""
    match operator:
        case Operator.SKIP:
            return Skip(c_in, widths_out) if stride == 1 else StridedSkip(c_in, widths_out)
        case Operator.CONV:
            return Conv(c_in, widths_out, stride, 1)
        case Operator.CONV_X2:
            return Conv(c_in, widths_out, stride, 2)
        case Operator.ZOOMED_CONV:
            return ZoomedConv(c_in, widths_out, stride, 1)
        case Operator.ZOOMED_CONV_X2:
            return ZoomedConv(c_in, widths_out, stride, 2)


class DiscreteOperator(nn.Module):
    """An operator of a derived network: a candidate of one width; a skip between equal shapes is the identity."""

    def __init__(self, operator: Operator, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.c_out = c_out
        identity = operator is Operator.SKIP and stride == 1 and c_in == c_out
        self.operator = IdentitySkip() if identity else candidate(operator, c_in, (c_out,), stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.operator(x, self.c_out)
        return out


def _convolutions(c_in: int, widths_out: Sequence[int], stride: int, num_convs: int) -> nn.ModuleList:
    widest = max(widths_out)
    return nn.ModuleList(
        SuperConvBN(widest if i else c_in, widths_out, stride=1 if i else stride) for i in range(num_convs)
    )
