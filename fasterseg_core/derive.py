"""Discrete architectures from alpha, beta and gamma (sec. 3.4), and the choice among branch pairs (appendix B)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.config import Role
from fasterseg_core.relaxation import Probabilities, Relaxation, first_connection
from fasterseg_core.search_space import DOWNSAMPLE_RATES, OPERATORS, Operator, SearchSpace


@dataclass(frozen=True)
class Derivation:
    """An architecture and, for each branch, the supernet layer of each of its cells: skips were shrunk away between."""

    architecture: Architecture
    layers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Choice:
    layer: int
    cell: Cell
    stride: int
    confidence: float  # the probability of the operator


def derive(relaxation: Relaxation, rates: tuple[int, ...]) -> Derivation:
    """The most probable architecture with branches of these rates, by the paper's own words (sec. 3.4)."""
    with torch.no_grad():
        probabilities = relaxation.probabilities()
    chosen = [_shrink_skips(_choices(relaxation, probabilities, rate), relaxation.space, rate) for rate in rates]
    architecture = Architecture(
        stem_ratio=relaxation.end_ratio,
        branches=tuple(
            Branch(with_end_ratio([choice.cell for choice in choices], relaxation.end_ratio)) for choices in chosen
        ),
    )
    return Derivation(architecture, tuple(tuple(choice.layer for choice in choices) for choices in chosen))


def best_path(space: SearchSpace, beta: Mapping[int, Tensor], rate: int) -> tuple[int, ...]:
    """The rate of the cell in each layer on the best path to a branch's rate.

    One downsampling: where beta0 is largest. Two: where the product of both is (sec. 3.4, footnote 2). A scale's first
    cell has one input, hence no beta: its probability there is 1 over a uniform choice, taken as 1/2 of two equals.
    """
    scales = DOWNSAMPLE_RATES[1 : DOWNSAMPLE_RATES.index(rate) + 1]

    def probability(scale: int, layer: int) -> float:
        rows, first = beta[scale], space.first_layer(scale)
        return float(rows[layer - first - 1, 0]) if layer > first else 0.5

    def joint(entries: tuple[int, ...]) -> float:
        return float(math.prod(probability(scale, layer) for scale, layer in zip(scales, entries, strict=True)))

    # entries: the first layer of the path at each further scale; ties go to the latest, the deepest at high resolution.
    entries = max(combinations(range(1, space.num_layers), len(scales)), key=lambda e: (joint(e), e))
    return path_through(entries, space)


def path_through(entries: tuple[int, ...], space: SearchSpace) -> tuple[int, ...]:
    """The rate of the cell in each layer of a path, given its first layer at each rate beyond 8."""
    return tuple(DOWNSAMPLE_RATES[sum(entry <= layer for entry in entries)] for layer in range(space.num_layers))


def ratio_into(relaxation: Relaxation, gamma: Mapping[int, Tensor], rate: int, layer: int) -> int:
    """The most probable ratio of what enters cell (rate, layer); layer L is the head."""
    if layer == relaxation.space.num_layers:
        return relaxation.end_ratio
    return relaxation.ratios[int(gamma[rate][layer - first_connection(relaxation.space, rate)].argmax())]


def with_end_ratio(cells: Sequence[Cell], end_ratio: int) -> tuple[Cell, ...]:
    """The cells, the last of which writes what the head reads: skips may have been shrunk away behind it."""
    return (*cells[:-1], replace(cells[-1], expansion_ratio=end_ratio))


def target(accuracy: float, latency_ms: float, exponent: float) -> float:
    """The criterion of eq. 5 up to a common factor, ACC * LAT^w with the one w of eq. 6: T never changes a ranking."""
    return float(accuracy * math.pow(latency_ms, exponent))


def _choices(relaxation: Relaxation, probabilities: Probabilities, rate: int) -> list[_Choice]:
    space = relaxation.space
    path = best_path(space, probabilities.beta, rate)
    choices = []
    for layer, read in enumerate(path):
        written = path[layer + 1] if layer + 1 < space.num_layers else read
        row = probabilities.alpha[read][layer - space.first_layer(read)]
        # A downsampling needs an operator, and the teacher has no skips.
        allowed = [
            op for op in OPERATORS if op is not Operator.SKIP or (written == read and relaxation.role is Role.STUDENT)
        ]
        operator = max(allowed, key=lambda op: float(row[OPERATORS.index(op)]))
        choices.append(
            _Choice(
                layer=layer,
                cell=Cell(
                    operator=operator,
                    downsample_rate=read,
                    expansion_ratio=ratio_into(relaxation, probabilities.gamma, written, layer + 1),
                ),
                stride=written // read,
                confidence=float(row[OPERATORS.index(operator)]),
            )
        )
    return choices


def _shrink_skips(choices: list[_Choice], space: SearchSpace, rate: int) -> list[_Choice]:
    """Removes skips, the most confident first, but never a whole run between downsamplings nor below a least depth."""
    least = round(space.num_layers / 3) + 2 * DOWNSAMPLE_RATES.index(rate)  # reference
    skips = sorted(
        (choice for choice in choices if choice.cell.operator is Operator.SKIP),
        key=lambda choice: (-choice.confidence, choice.layer),
    )
    for skip in skips:
        run = next(run for run in _runs(choices) if skip in run)
        if len(choices) > least and len(run) > 1:
            choices = [choice for choice in choices if choice is not skip]
    return choices


def _runs(choices: list[_Choice]) -> Iterator[list[_Choice]]:
    """The stretches of stride-1 cells at one rate."""
    for rate in DOWNSAMPLE_RATES:
        yield [choice for choice in choices if choice.cell.downsample_rate == rate and choice.stride == 1]
