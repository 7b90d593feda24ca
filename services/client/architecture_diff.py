"""Two architectures side by side, cell by cell."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Annotated

from pydantic import BaseModel, Field
from rich.table import Table
from rich.text import Text

from .schemas import JsonObject


class Cell(BaseModel):
    operator: str
    downsample_rate: int
    expansion_ratio: int


class Architecture(BaseModel):
    """As much of a document as a comparison reads."""

    stem_ratio: int
    branches: list[Annotated[list[Cell], Field(min_length=1)]]


def architecture_diff(before: JsonObject, after: JsonObject) -> tuple[Table, int]:
    """A table of both for 80 columns, with a mark where they differ, and in how many rows they do.

    Branches are paired by their rate, cells by what they are, so that one more cell does not shift all that follow.

    Raises:
        ValidationError: a document is not one of an architecture.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("BRANCH", "A", "", "B"):
        table.add_column(column, no_wrap=True)
    count = 0
    for part, left, right in _rows(Architecture.model_validate(before), Architecture.model_validate(after)):
        count += left != right
        table.add_row(Text(part), Text(left), Text("" if left == right else "<>"), Text(right))
    return table, count


def _rows(before: Architecture, after: Architecture) -> Iterator[tuple[str, str, str]]:
    """What is compared, and what each side has there; nothing where it has no such cell."""
    yield "stem", f"{before.stem_ratio}x8={before.stem_ratio * 8}", f"{after.stem_ratio}x8={after.stem_ratio * 8}"
    sides = [{cells[-1].downsample_rate: _cells(cells) for cells in side.branches} for side in (before, after)]
    for rate in sorted(sides[0].keys() | sides[1].keys()):
        left, right = (side.get(rate, []) for side in sides)
        for _, start, end, other_start, other_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
            yield from (
                (str(rate), *pair) for pair in zip_longest(left[start:end], right[other_start:other_end], fillvalue="")
            )


def _cells(cells: list[Cell]) -> list[str]:
    """Each cell as text: operator, scales that it reads and writes, ratio x scale = channels that it writes."""
    written = [*(cell.downsample_rate for cell in cells[1:]), cells[-1].downsample_rate]
    return [
        f"{cell.operator:14} {f'{cell.downsample_rate}->{rate}':6} "
        f"{cell.expansion_ratio}x{rate}={cell.expansion_ratio * rate}"
        for cell, rate in zip(cells, written, strict=True)
    ]
