"""A discrete architecture: the branches of cells that a search derives (sec. 3.4), its canonical form and Table 7."""

import hashlib
import json
from dataclasses import dataclass
from typing import TypedDict

from fasterseg_core.search_space import DOWNSAMPLE_RATES, LARGEST_RATIO, MOST_LAYERS, Operator


class CellDocument(TypedDict):
    operator: str
    downsample_rate: int
    expansion_ratio: int


class ArchitectureDocument(TypedDict):
    stem_ratio: int
    branches: list[list[CellDocument]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One operator, the rate s of the map that it reads, and the ratio chi of the map that it writes."""

    operator: Operator
    downsample_rate: int
    expansion_ratio: int


@dataclass(frozen=True)
class Branch:
    """Cells in order; a cell has stride 2 where the next one reads a smaller map, the last one has stride 1.

    Raises:
        ValueError: no cells, an unknown rate, or a path that does not go 8 -> 16 -> 32 step by step.
    """

    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        rates = [cell.downsample_rate for cell in self.cells]
        if not rates or rates[0] != DOWNSAMPLE_RATES[0]:
            raise ValueError(f"a branch must begin with a cell at s = {DOWNSAMPLE_RATES[0]}, not {rates[:1]}")
        if len(rates) > MOST_LAYERS:
            raise ValueError(f"{len(rates)} cells; at most {MOST_LAYERS}")
        for i, rate in enumerate(rates):
            if rate not in DOWNSAMPLE_RATES:
                raise ValueError(f"cell {i + 1}: downsample_rate {rate} is not one of {DOWNSAMPLE_RATES}")
            if i and rate not in (rates[i - 1], 2 * rates[i - 1]):
                raise ValueError(f"cell {i + 1}: rate {rate} cannot follow {rates[i - 1]}")
            if not 1 <= self.cells[i].expansion_ratio <= LARGEST_RATIO:
                raise ValueError(f"cell {i + 1}: expansion_ratio must lie between 1 and {LARGEST_RATIO}")

    @property
    def downsample_rate(self) -> int:
        """The rate of the branch's output."""
        return self.cells[-1].downsample_rate

    def stride(self, index: int) -> int:
        """The stride of one cell, 1 or 2."""
        following = self.cells[min(index + 1, len(self.cells) - 1)]
        return following.downsample_rate // self.cells[index].downsample_rate

    def out_rate(self, index: int) -> int:
        """The rate of the map that one cell writes."""
        return self.cells[index].downsample_rate * self.stride(index)

    def out_channels(self, index: int) -> int:
        """The channels of the map that one cell writes: chi times the rate of that map (sec. 3.1.3)."""
        return self.cells[index].expansion_ratio * self.out_rate(index)

    def in_channels(self, index: int, stem_ratio: int) -> int:
        """The channels of the map that one cell reads; the first reads the stem's."""
        return self.out_channels(index - 1) if index else stem_ratio * DOWNSAMPLE_RATES[0]

    def downsampling_index(self, rate: int) -> int:
        """The index of the cell that reads the branch's last map at this rate and writes at twice the rate."""
        return next(i for i, cell in enumerate(self.cells) if cell.downsample_rate == rate and self.stride(i) == 2)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One or two branches of different rates behind one stem (sec. 3.4); the last cells set the head's ratio.

    Raises:
        ValueError: no or too many branches, equal rates, or last cells of different ratios.
    """

    stem_ratio: int
    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        rates = self.rates
        if len(rates) not in (1, 2) or list(rates) != sorted(set(rates)):
            raise ValueError(f"branches must be one or two, of increasing rate, not of rates {list(rates)}")
        if len({branch.cells[-1].expansion_ratio for branch in self.branches}) > 1:
            raise ValueError("the last cells of all branches must have one expansion_ratio, the head's")
        if not 1 <= self.stem_ratio <= LARGEST_RATIO:
            raise ValueError(f"stem_ratio must lie between 1 and {LARGEST_RATIO}")

    @property
    def rates(self) -> tuple[int, ...]:
        """The branches' rates."""
        return tuple(branch.downsample_rate for branch in self.branches)

    @property
    def head_ratio(self) -> int:
        """The expansion ratio of the maps that enter the head."""
        return self.branches[0].cells[-1].expansion_ratio

    @property
    def num_shared_cells(self) -> int:
        """How many leading cells the branches share: equal operator, scale and ratio, never a branch's last."""
        if len(self.branches) == 1:
            return 0
        first, second = self.branches
        limit = min(len(first.cells), len(second.cells)) - 1
        for i in range(limit):
            if first.cells[i] != second.cells[i] or first.stride(i) != second.stride(i):
                return i
        return limit

    def to_document(self) -> ArchitectureDocument:
        """The architecture as plain JSON values."""
        return {
            "stem_ratio": self.stem_ratio,
            "branches": [
                [
                    {
                        "operator": cell.operator.value,
                        "downsample_rate": cell.downsample_rate,
                        "expansion_ratio": cell.expansion_ratio,
                    }
                    for cell in branch.cells
                ]
                for branch in self.branches
            ],
        }

    @classmethod
    def from_document(cls, document: ArchitectureDocument) -> "Architecture":
        """The architecture of a document; ValueError names the cell that is wrong."""
        branches = []
        for number, cells in enumerate(document["branches"], start=1):
            try:
                branches.append(
                    Branch(
                        tuple(
                            Cell(
                                operator=Operator(cell["operator"]),
                                downsample_rate=cell["downsample_rate"],
                                expansion_ratio=cell["expansion_ratio"],
                            )
                            for cell in cells
                        )
                    )
                )
            except ValueError as error:
                raise ValueError(f"branch {number}: {error}") from error
        return cls(stem_ratio=document["stem_ratio"], branches=tuple(branches))

    def canonical_json(self) -> str:
        """One text for one architecture: sorted keys, no spaces."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """The sha256 of the canonical JSON, in hex; the architecture's id."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def _branch(rows: str) -> Branch:
    cells = (row.split() for row in rows.strip().splitlines())
    return Branch(
        tuple(
            Cell(operator=Operator(name), downsample_rate=int(rate), expansion_ratio=int(ratio))
            for name, rate, ratio in cells
        )
    )


# The published student (appendix I, Table 7).
TABLE_7 = Architecture(
    stem_ratio=8,
    branches=(
        _branch("""
            conv_x2 8 4
            conv_x2 8 4
            zoomed_conv_x2 8 4
            zoomed_conv_x2 8 4
            conv_x2 8 4
            conv_x2 8 4
            zoomed_conv_x2 16 4
            zoomed_conv_x2 16 12
            zoomed_conv_x2 16 8
        """),
        _branch("""
            conv_x2 8 4
            conv_x2 8 4
            zoomed_conv_x2 8 4
            zoomed_conv 8 8
            zoomed_conv_x2 16 4
            zoomed_conv_x2 16 4
            zoomed_conv_x2 16 4
            zoomed_conv_x2 16 4
            zoomed_conv_x2 32 4
            zoomed_conv_x2 32 8
        """),
    ),
)
