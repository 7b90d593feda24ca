"""The module of an OperatorSpec, and the neighbours between which tables measure it."""

import torch
from torch import Tensor, nn

from fasterseg_core.operator_specs import NEIGHBOUR_CHANNELS, OperatorSpec, Structure
from fasterseg_core.operators import DiscreteOperator, resize
from fasterseg_core.search_space import Operator
from fasterseg_core.stem_head import ConvBNReLU, Prediction, Stem


class Upsample(nn.Module):
    """The head's upsampling to a fixed size: (B, C, h, w) -> (B, C, height, width)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)

    def forward(self, x: Tensor) -> Tensor:
        return resize(x, self.size)


class Concat(nn.Module):
    """The head's concatenation: (B, a, H, W), (B, b, H, W) -> (B, a + b, H, W)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], dim=1)


def build_operator(spec: OperatorSpec) -> nn.Module:
    """The module of a spec, freshly initialised, in evaluation mode; it takes tensors of `input_shapes(spec)`."""
    match spec.operator:
        case Structure.STEM:
            return Stem(spec.c_out).eval()
        case Structure.POINTWISE:
            return ConvBNReLU(spec.c_in, spec.c_out, kernel_size=1).eval()
        case Structure.UPSAMPLE:
            return Upsample(spec.height, spec.width).eval()
        case Structure.CONCAT:
            return Concat().eval()
        case Structure.PREDICTION:
            return Prediction(spec.c_in, spec.c_out).eval()
        case Structure.NEIGHBOURS:
            return nn.Sequential(neighbour_before(spec.c_in), neighbour_after(spec.c_in)).eval()
        case Operator():
            return DiscreteOperator(spec.operator, spec.c_in, spec.c_out, spec.stride).eval()


def neighbour_before(channels: int) -> nn.Module:
    """Writes what an operator reads: (B, NEIGHBOUR_CHANNELS, H, W) -> (B, channels, H, W)."""
    return ConvBNReLU(NEIGHBOUR_CHANNELS, channels, kernel_size=1)


def neighbour_after(channels: int) -> nn.Module:
    """Reads what an operator writes: (B, channels, H, W) -> (B, NEIGHBOUR_CHANNELS, H, W)."""
    return ConvBNReLU(channels, NEIGHBOUR_CHANNELS, kernel_size=1)


def with_random_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, its batch norms far from the identity: what comes before and after them shows."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
        for values, low in ((norm.weight, 0.5), (norm.bias, -0.2), (norm.running_mean, -0.2), (norm.running_var, 0.5)):
            assert values is not None, "every batch norm of this project is affine and tracks its statistics"
            values.data = low + 0.8 * torch.rand(values.shape, generator=generator)
    return module.eval()
