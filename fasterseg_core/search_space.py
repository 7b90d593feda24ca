"""The search space: the lattice's cells, operators and widths, and how many networks it holds (sec. 3.1, 4.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import comb

DOWNSAMPLE_RATES = (8, 16, 32)  # sec. 3.1.1
BRANCH_PAIRS = ((8, 16), (8, 32), (16, 32))  # appendix B
SMALLEST_SIDE = 2 * DOWNSAMPLE_RATES[-1]  # zoomed operators halve the map at s = 32 once more
LARGEST_SIDE = 8192  # beyond it one map of the stem takes gigabytes
MOST_LAYERS = 64
LARGEST_RATIO = 256


class Operator(StrEnum):
    """The five candidates of a cell (sec. 3.1.2), in the order of alpha's columns."""

    SKIP = "skip"
    CONV = "conv"
    CONV_X2 = "conv_x2"
    ZOOMED_CONV = "zoomed_conv"
    ZOOMED_CONV_X2 = "zoomed_conv_x2"


OPERATORS = tuple(Operator)


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The height and width of an image in pixels; every other size follows from it.

    Raises:
        ValueError: a side is too small for the cells at s = 32, or too large to compute.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side < SMALLEST_SIDE:
                raise ValueError(
                    f"{name} {side} is too small for scale {DOWNSAMPLE_RATES[-1]}: use {SMALLEST_SIDE} or more"
                )
            if side > LARGEST_SIDE:
                raise ValueError(f"{name} {side} is too large: use {LARGEST_SIDE} or less")

    def at(self, rate: int) -> tuple[int, int]:
        """The (height, width) of a map at 1/rate: each stride 2 rounds up, so any image size works."""
        return -(-self.height // rate), -(-self.width // rate)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """An L-layer lattice of cells at s in {8, 16, 32}; the defaults are the paper's (sec. 3.1, 4.2).

    The cell (s, l) reads a map at 1/s of the image and writes one at the same scale (stride 1) and, where the
    lattice goes on, one at half of it (stride 2).

    Raises:
        ValueError: too few layers to reach s = 32, or widths that are not increasing.
    """

    num_layers: int = 16
    expansion_ratios: tuple[int, ...] = (4, 6, 8, 10, 12)
    student_ratio: int = 8  # stem and head of the student; the teacher's are the widest (sec. 3.3)

    def __post_init__(self) -> None:
        if self.num_layers < 3:
            raise ValueError(f"num_layers is {self.num_layers}; s = 32 is first reached with 3 layers")
        if self.num_layers > MOST_LAYERS:
            raise ValueError(f"num_layers is {self.num_layers}; at most {MOST_LAYERS}")
        if not self.expansion_ratios or list(self.expansion_ratios) != sorted(set(self.expansion_ratios)):
            raise ValueError(f"expansion_ratios {self.expansion_ratios} must be distinct and increasing")
        if self.expansion_ratios[0] < 1 or self.expansion_ratios[-1] > LARGEST_RATIO:
            raise ValueError(f"expansion_ratios {self.expansion_ratios} must lie between 1 and {LARGEST_RATIO}")
        if self.student_ratio not in self.expansion_ratios:
            raise ValueError(f"student_ratio {self.student_ratio} is not one of {self.expansion_ratios}")

    @property
    def teacher_ratio(self) -> int:
        """The widest ratio, which the teacher uses everywhere (sec. 3.3)."""
        return self.expansion_ratios[-1]

    def rates_at(self, layer: int) -> tuple[int, ...]:
        """The downsample rates of the cells in one layer: s = 16 starts at layer 1, s = 32 at layer 2."""
        return DOWNSAMPLE_RATES[: layer + 1]

    def cells(self) -> Iterator[tuple[int, int]]:
        """Every cell (s, l), layer by layer."""
        for layer in range(self.num_layers):
            for rate in self.rates_at(layer):
                yield rate, layer

    def strides(self, rate: int, layer: int) -> tuple[int, ...]:
        """The strides of a cell's outputs: no stride 2 at s = 32 or in the last layer."""
        last = rate == DOWNSAMPLE_RATES[-1] or layer == self.num_layers - 1
        return (1,) if last else (1, 2)

    def first_layer(self, rate: int) -> int:
        """The first layer that has a cell at this rate."""
        return DOWNSAMPLE_RATES.index(rate)

    def has_two_inputs(self, rate: int, layer: int) -> bool:
        """Whether beta chooses between two predecessors (eq. 1): not at s = 8, nor at a scale's first cell."""
        return rate > DOWNSAMPLE_RATES[0] and layer > self.first_layer(rate)

    def paths(self, rate: int) -> Iterator[tuple[int, ...]]:
        """Every path that ends at this rate, as the rate of the cell in each layer."""
        for cuts in combinations(range(1, self.num_layers), DOWNSAMPLE_RATES.index(rate)):
            yield tuple(DOWNSAMPLE_RATES[sum(cut <= layer for cut in cuts)] for layer in range(self.num_layers))

    def count_paths(self) -> int:
        """The number of two-branch paths, 1695 for the paper's lattice (sec. 4.2)."""
        single = {rate: comb(self.num_layers - 1, i) for i, rate in enumerate(DOWNSAMPLE_RATES)}
        return sum(single[a] * single[b] for a, b in BRANCH_PAIRS)

    def count_combinations(self) -> int:
        """The number of operator and width choices over all cells, 3.4e55 for the paper's lattice (sec. 4.2)."""
        inner = sum(self.num_layers - 1 - self.first_layer(rate) for rate in DOWNSAMPLE_RATES)
        choices = 1 + (len(OPERATORS) - 1) * len(self.expansion_ratios)
        return int(choices**inner + len(OPERATORS) ** len(DOWNSAMPLE_RATES))
