"""The supernet: the lattice of relaxed cells between the stems and the heads of teacher and student (eqs. 1-2).

Each branch's head reads, besides the branch's output, its last map at each finer rate, as a derived network does. In
the relaxation that map is the expectation over where the path was downsampled, so that a one-hot beta gives exactly
the derived network's map.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.operators import candidate, resize
from fasterseg_core.relaxation import Probabilities, Width, Widths, crossings
from fasterseg_core.search_space import BRANCH_PAIRS, DOWNSAMPLE_RATES, OPERATORS, SearchSpace
from fasterseg_core.stem_head import BranchAggregation, FusedPrediction, Prediction, Stem


class MixedOperator(nn.Module):
    """The five candidates between two maps, weighted by alpha (eq. 2)."""

    def __init__(self, space: SearchSpace, rate: int, stride: int) -> None:
        super().__init__()
        self.rate_out = rate * stride
        widths_out = [ratio * self.rate_out for ratio in space.expansion_ratios]
        c_in = space.teacher_ratio * rate
        self.candidates = nn.ModuleList(candidate(operator, c_in, widths_out, stride) for operator in OPERATORS)

    def forward(self, x: Tensor, alpha: Tensor, width: Width) -> Tensor:
        """x (B, c, H, W), alpha (5,) -> (B, ratio * rate_out, ceil(H / stride), ceil(W / stride))."""
        c_out = width.padded or width.ratio * self.rate_out
        first, *others = self.candidates
        out: Tensor = alpha[0] * first(x, c_out)
        for weight, operator in zip(alpha[1:], others, strict=True):
            out = torch.addcmul(out, weight, operator(x, c_out))
        return out if width.score is None else out * width.score


class Cell(nn.Module):
    """The cell (s, l): one mixed operator for each of its outputs."""

    def __init__(self, space: SearchSpace, rate: int, layer: int) -> None:
        super().__init__()
        self.keep = MixedOperator(space, rate, 1)
        self.down = MixedOperator(space, rate, 2) if 2 in space.strides(rate, layer) else None


class EndModules(nn.Module):
    """The stem and the head of one role: an aggregation for each branch, a prediction for each branch and each pair."""

    def __init__(self, space: SearchSpace, ratio: int, num_classes: int) -> None:
        super().__init__()
        widest = {rate: space.teacher_ratio * rate for rate in DOWNSAMPLE_RATES}
        self.stem = Stem(ratio * DOWNSAMPLE_RATES[0])
        self.aggregations = nn.ModuleDict(
            {str(rate): BranchAggregation(rate, ratio, widest) for rate in DOWNSAMPLE_RATES}
        )
        self.singles = nn.ModuleDict({str(rate): Prediction(ratio * rate, num_classes) for rate in DOWNSAMPLE_RATES})
        self.pairs = nn.ModuleDict({pair_key(pair): FusedPrediction(2, ratio, num_classes) for pair in BRANCH_PAIRS})

    def forward(
        self, outputs: Mapping[int, Tensor], finer: Mapping[int, Mapping[int, Tensor]]
    ) -> dict[tuple[int, ...], Tensor]:
        """What the last layer writes at each s, and each branch's finer maps -> logits (B, num_classes, H/8, W/8)."""
        maps = {rate: self.aggregations[str(rate)](outputs[rate], finer[rate]) for rate in DOWNSAMPLE_RATES}
        size = (outputs[8].shape[2], outputs[8].shape[3])
        logits: dict[tuple[int, ...], Tensor] = {
            (rate,): resize(self.singles[str(rate)](outputs[rate]), size) for rate in DOWNSAMPLE_RATES
        }
        return logits | {pair: self.pairs[pair_key(pair)]([maps[rate] for rate in pair]) for pair in BRANCH_PAIRS}


class Supernet(nn.Module):
    """All cells of the space, shared by teacher and student; a stem and a head of each (sec. 3.3)."""

    def __init__(self, space: SearchSpace, num_classes: int) -> None:
        super().__init__()
        self.space = space
        self.num_classes = num_classes
        self.outputs: tuple[tuple[int, ...], ...] = (*((rate,) for rate in DOWNSAMPLE_RATES), *BRANCH_PAIRS)
        self.cells = nn.ModuleDict({f"{rate}_{layer}": Cell(space, rate, layer) for rate, layer in space.cells()})
        self.ends = nn.ModuleDict(
            {
                Role.STUDENT: EndModules(space, space.student_ratio, num_classes),
                Role.TEACHER: EndModules(space, space.teacher_ratio, num_classes),
            }
        )

    def cell(self, rate: int, layer: int) -> Cell:
        """The cell (s, l)."""
        cell = self.cells[f"{rate}_{layer}"]
        assert isinstance(cell, Cell)
        return cell

    def end_modules(self, role: Role) -> EndModules:
        """The stem and the head of one role."""
        ends = self.ends[role]
        assert isinstance(ends, EndModules)
        return ends

    def forward(
        self, images: Tensor, role: Role, probabilities: Probabilities, widths: Widths
    ) -> dict[tuple[int, ...], Tensor]:
        """Images (B, 3, H, W) -> logits (B, num_classes, H/8, W/8) of every single branch and every pair."""
        ends = self.end_modules(role)
        inputs, outputs = self._cells(ends.stem(images), probabilities, widths)
        logits: dict[tuple[int, ...], Tensor] = ends(outputs, _finer_maps(self.space, inputs, probabilities.beta))
        return logits

    def _cells(
        self, stem: Tensor, probabilities: Probabilities, widths: Widths
    ) -> tuple[dict[tuple[int, int], Tensor], dict[int, Tensor]]:
        """What each cell (s, l) reads (eq. 1), and what the last layer writes at each s (eq. 2)."""
        space = self.space
        inputs: dict[tuple[int, int], Tensor] = {}
        kept: dict[int, Tensor] = {8: stem}  # by rate: what the layer before wrote at stride 1
        halved: dict[int, Tensor] = {}  # by the rate it has now: what the layer before wrote at stride 2
        for layer in range(space.num_layers):
            next_kept, next_halved = {}, {}
            for rate in space.rates_at(layer):
                first = space.first_layer(rate)
                if space.has_two_inputs(rate, layer):
                    beta = probabilities.beta[rate][layer - first - 1]
                    x = beta[0] * halved[rate] + beta[1] * kept[rate]
                else:
                    x = kept[rate] if rate == DOWNSAMPLE_RATES[0] else halved[rate]
                inputs[rate, layer] = x
                cell, alpha = self.cell(rate, layer), probabilities.alpha[rate][layer - first]
                next_kept[rate] = cell.keep(x, alpha, widths.into(rate, layer + 1))
                if cell.down is not None:
                    next_halved[2 * rate] = cell.down(x, alpha, widths.into(2 * rate, layer + 1))
            kept, halved = next_kept, next_halved
        return inputs, kept


def pair_key(pair: tuple[int, int]) -> str:
    """The name of a pair of branches, for example "16+32"."""
    return f"{pair[0]}+{pair[1]}"


def _finer_maps(
    space: SearchSpace, inputs: Mapping[tuple[int, int], Tensor], beta: Mapping[int, Tensor]
) -> dict[int, dict[int, Tensor]]:
    """By branch: its last map at each finer rate, (B, <= widest, H, W), in expectation over its path."""
    crossed = crossings(space, beta)
    at_8 = {(8, layer): weight for layer, weight in enumerate(crossed[32].sum(dim=1))}
    at_16 = {(16, layer): weight for layer, weight in enumerate(crossed[32].sum(dim=0))}
    return {
        8: {},
        16: {8: _expectation(inputs, {(8, layer): weight for layer, weight in enumerate(crossed[16])})},
        32: {8: _expectation(inputs, at_8), 16: _expectation(inputs, at_16)},
    }


def _expectation(inputs: Mapping[tuple[int, int], Tensor], weights: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """The weighted sum of what cells read, narrower maps filled up with zero channels."""
    present = {place: weight for place, weight in weights.items() if place in inputs}
    widest = max(inputs[place].shape[1] for place in present)
    return sum(
        (
            F.pad(weight * inputs[place], (0, 0, 0, 0, 0, widest - inputs[place].shape[1]))
            for place, weight in present.items()
        ),
        start=next(iter(inputs.values())).new_zeros(()),
    )
