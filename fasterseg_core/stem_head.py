"""The stem in front of the cells and the head that aggregates the branches (appendix A)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasterseg_core.operator_specs import range_down, stem_convolutions
from fasterseg_core.operators import resize
from fasterseg_core.search_space import DOWNSAMPLE_RATES
from fasterseg_core.superkernel import SuperConvBN


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU: (B, c_in, H, W) -> (B, c_out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )


class Stem(nn.Sequential):
    """Five 3x3 convolutions, the first, second and fourth of stride 2: (B, 3, H, W) -> (B, c_out, H/8, W/8)."""

    def __init__(self, c_out: int) -> None:
        rate = 1
        layers = []
        for c_from, c_to, rate_after in stem_convolutions(c_out):
            layers.append(ConvBNReLU(c_from, c_to, stride=rate_after // rate))
            rate = rate_after
        super().__init__(*layers)


class Aggregation(nn.Module):
    """1x1 convolution, upsampling to a finer map, concatenation with it, 3x3 convolution.

    The finer map may have fewer channels than `c_skip`: in the supernet its width is searched, so the 3x3 kernel is a
    superkernel on its input.
    """

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.c_out = c_out
        self.reduce = ConvBNReLU(c_in, c_out, kernel_size=1)
        self.refine = SuperConvBN(c_out + c_skip, (c_out,))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B, c_in, h, w), skip (B, <= c_skip, H, W) -> (B, c_out, H, W)."""
        size = (skip.shape[2], skip.shape[3])
        return F.relu_(self.refine(torch.cat([resize(self.reduce(x), size), skip], dim=1), self.c_out))


class Prediction(nn.Sequential):
    """3x3 convolution of equal width, 1x1 convolution to classes: (B, c_in, H, W) -> (B, num_classes, H, W)."""

    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__(ConvBNReLU(c_in, c_in), nn.Conv2d(c_in, num_classes, 1))


class BranchAggregation(nn.Module):
    """The steps that bring one branch to 1/8; none for a branch that is there already.

    Args:
        skip_channels: rate -> the most channels of the branch's last map at that finer rate.
    """

    def __init__(self, rate: int, ratio: int, skip_channels: Mapping[int, int]) -> None:
        super().__init__()
        self.sources = range_down(rate)
        self.steps = nn.ModuleList(
            Aggregation(ratio * source, skip_channels[source // 2], ratio * source // 2) for source in self.sources
        )

    def forward(self, x: Tensor, finer: Mapping[int, Tensor]) -> Tensor:
        """The branch's output and its last map at each finer rate -> (B, ratio * 8, H/8, W/8)."""
        for source, step in zip(self.sources, self.steps, strict=True):
            x = step(x, finer[source // 2])
        return x


class FusedPrediction(nn.Module):
    """1x1 fusion of the aggregated branches, then the prediction."""

    def __init__(self, num_branches: int, ratio: int, num_classes: int) -> None:
        super().__init__()
        channels = num_branches * ratio * DOWNSAMPLE_RATES[0]
        self.fusion = ConvBNReLU(channels, channels, kernel_size=1)
        self.prediction = Prediction(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map (B, ratio * 8, H/8, W/8) for each branch -> logits (B, num_classes, H/8, W/8)."""
        logits: Tensor = self.prediction(self.fusion(torch.cat(list(maps), dim=1) if len(maps) > 1 else maps[0]))
        return logits
