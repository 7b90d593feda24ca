"""A supernet pass at any widths as one function of tensors of fixed shapes, so that one CUDA graph serves all of them.

Maps have the channels of the widest width, zeros beyond those in use (`PaddedWidth`): logits, gradients and statistics
are those of the pass at its widths. It computes more, and waits for no launches.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.operators import StridedSkip
from fasterseg_core.relaxation import Probabilities, Width, Widths, connections
from fasterseg_core.superkernel import PaddedNorm, PaddedWidth, SuperConvBN
from fasterseg_core.supernet import MixedOperator, Supernet


class PaddedInputs(NamedTuple):
    """What the widths of one pass put in: the factors that reach gamma, one for each connection, and for each channel
    the norms' scales and shifts and, where halves are concatenated, which channel it takes."""

    scores: Tensor
    scales: Tensor
    shifts: Tensor
    orders: Tensor


class PaddedPass(nn.Module):
    """A pass of one role; what its widths are is in its inputs, both ends have the role's own."""

    def __init__(self, supernet: Supernet, role: Role, end_ratio: int) -> None:
        super().__init__()
        self.supernet, self.role, self.end_ratio = supernet, role, end_ratio
        self.connections = connections(supernet.space)
        written = [
            (place, module)
            for place in self.connections
            for mixed in _into(supernet, *place)
            for module in mixed.modules()
        ]
        self._convs = [(place, module) for place, module in written if isinstance(module, SuperConvBN)]
        self._skips = [(place, module) for place, module in written if isinstance(module, StridedSkip)]
        device = next(supernet.parameters()).device
        self._channels = [conv.conv.out_channels for _, conv in self._convs]
        self._statistics = torch.zeros(2, sum(self._channels), device=device)
        last = zip(*(torch.split(part, self._channels) for part in self._statistics), strict=True)
        self._norms = [
            (place, [_Norm.of(cast(nn.BatchNorm2d, norm), mean, variance) for norm in conv.norms])
            for (place, conv), (mean, variance) in zip(self._convs, last, strict=True)
        ]
        self._orders = [(place, _orders_of_halves(skip.even.widths_out).to(device)) for place, skip in self._skips]

    def forward(self, images: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), `Probabilities.rows`, `PaddedInputs` -> the logits in their order."""
        probabilities, inputs = Probabilities.of_rows(tensors[:5]), PaddedInputs(*tensors[5:])
        parts = [torch.split(part, self._channels) for part in (inputs.scales, inputs.shifts, *self._statistics)]
        orders = torch.split(inputs.orders, [order.shape[1] for _, order in self._orders])
        padded = PaddedWidth(
            norms={conv: PaddedNorm(*norm) for (_, conv), *norm in zip(self._convs, *parts, strict=True)},
            orders={skip: order for (_, skip), order in zip(self._skips, orders, strict=True)},
        )
        widest, scores = self.supernet.space.teacher_ratio, inputs.scores.unbind()
        widths = {place: Width(widest, score, padded) for place, score in zip(self.connections, scores, strict=True)}
        logits = self.supernet(images, self.role, probabilities, Widths(widths, self.end_ratio))
        return tuple(logits.values())

    def inputs(self, widths: Widths) -> PaddedInputs:
        """Those of given widths; gradients flow through them to gamma, and to the norms of these widths alone."""
        index = self._indices(widths)
        norms = [norms[index[place]] for place, norms in self._norms]
        scores = [score for place in self.connections if (score := widths.connections[place].score) is not None]
        return PaddedInputs(
            scores=torch.stack(scores) if scores else self._statistics.new_ones(len(self.connections)),
            scales=torch.cat([part for norm in norms for part in (norm.scale, norm.zeros)]),
            shifts=torch.cat([part for norm in norms for part in (norm.shift, norm.zeros)]),
            orders=torch.cat([orders[index[place]] for place, orders in self._orders]),
        )

    @torch.no_grad()
    def keep_statistics(self, widths: Widths) -> None:
        """Moves the running statistics of the norms in use towards those of the last pass, as batch norms do."""
        index = self._indices(widths)
        norms = [norms[index[place]] for place, norms in self._norms]
        torch._foreach_lerp_([norm.mean for norm in norms], [norm.last_mean for norm in norms], norms[0].momentum)
        torch._foreach_lerp_(
            [norm.variance for norm in norms], [norm.last_variance for norm in norms], norms[0].momentum
        )
        torch._foreach_add_([norm.batches for norm in norms], 1)

    def _indices(self, widths: Widths) -> dict[tuple[int, int], int]:
        """Of each connection, which of the space's ratios it has."""
        ratios = self.supernet.space.expansion_ratios
        return {place: ratios.index(width.ratio) for place, width in widths.connections.items()}


class _Norm(NamedTuple):
    """One of a convolution's batch norms: what it learns, with the zeros that fill it up, and its statistics."""

    scale: Tensor
    shift: Tensor
    zeros: Tensor
    mean: Tensor
    variance: Tensor
    batches: Tensor
    last_mean: Tensor
    last_variance: Tensor
    momentum: float

    @staticmethod
    def of(norm: nn.BatchNorm2d, last_mean: Tensor, last_variance: Tensor) -> "_Norm":
        """Of a norm, whose padded pass writes these statistics."""
        width = norm.num_features
        return _Norm(
            scale=norm.weight,
            shift=norm.bias,
            zeros=torch.zeros_like(last_mean[width:]),
            mean=norm.get_buffer("running_mean"),
            variance=norm.get_buffer("running_var"),
            batches=norm.get_buffer("num_batches_tracked"),
            last_mean=last_mean[:width],
            last_variance=last_variance[:width],
            momentum=cast(float, norm.momentum),
        )


def _into(supernet: Supernet, rate: int, layer: int) -> list[MixedOperator]:
    """The mixed operators that write what cell (rate, layer) reads."""
    before = supernet.space.rates_at(layer - 1)
    writers = [supernet.cell(rate, layer - 1).keep] if rate in before else []
    down = supernet.cell(rate // 2, layer - 1).down if rate // 2 in before else None
    return writers if down is None else [*writers, down]


def _orders_of_halves(widths: tuple[int, ...]) -> Tensor:
    """(widths, 2 * widest): for halves of each width, padded and concatenated, the order with the zeros at the end."""
    widest = max(widths)
    orders = [
        [*range(width), *range(widest, widest + width), *range(width, widest), *range(widest + width, 2 * widest)]
        for width in widths
    ]
    return torch.tensor(orders)
