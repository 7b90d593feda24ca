"""Two latency tables compared: what they were measured on, the rows that one lacks, and the ratios of the others."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .latency_table import LatencyTable

WORST = 10  # ratios shown


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A row that both tables have measured."""

    key: str
    before_ms: float
    after_ms: float

    @property
    def value(self) -> float:
        """How many times as long the second takes."""
        return self.after_ms / self.before_ms

    @property
    def distance(self) -> float:
        """From equal; half as long is as far as twice as long."""
        return abs(math.log(self.value))


def table_diff(before: LatencyTable, after: LatencyTable) -> RenderableType:
    """The comparison, ready to print."""
    shared = ratios(before, after)
    worst = sorted(shared, key=lambda ratio: (-ratio.distance, ratio.key))[:WORST]
    return Group(_fingerprints(before, after), *(Text(line) for line in _lines(before, after, shared)), _ratios(worst))


def ratios(before: LatencyTable, after: LatencyTable) -> list[Ratio]:
    """The rows that both have measured, those that cost nothing left out."""
    found = []
    for key in sorted(before.rows.keys() & after.rows.keys()):
        left, right = before.rows[key], after.rows[key]
        if left.is_measured and right.is_measured and left.milliseconds > 0 and right.milliseconds > 0:
            found.append(Ratio(key=key, before_ms=left.milliseconds, after_ms=right.milliseconds))
    return found


def _fingerprints(before: LatencyTable, after: LatencyTable) -> RenderableType:
    left, right = before.fingerprint.texts(), after.fingerprint.texts()
    differing = [name for name in left if left[name] != right[name]]
    if not differing:
        return Text("one fingerprint: both tables can be mixed by `fasterseg lut build --from`")
    table = Table(box=None, pad_edge=False)
    for column in ("FINGERPRINT", "A", "B"):
        table.add_column(column, overflow="fold")
    for name in differing:
        table.add_row(Text(name), Text(left[name]), Text(right[name]))
    return table


def _lines(before: LatencyTable, after: LatencyTable, shared: list[Ratio]) -> Iterator[str]:
    for name, one, other in (("A", before, after), ("B", after, before)):
        alone = sorted(one.rows.keys() - other.rows.keys())
        yield f"only in {name}: {len(alone)} rows"
        yield from (f"  {key}" for key in alone)
    left_out = len(before.rows.keys() & after.rows.keys()) - len(shared)
    yield f"measured in both: {len(shared)} rows" + (f"; {left_out} more are quarantined or cost 0 ms" * bool(left_out))
    if shared:
        yield f"B takes {median(ratio.value for ratio in shared):.3f} times as long as A (median)"


def _ratios(worst: list[Ratio]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    table.add_column("FARTHEST FROM EQUAL", no_wrap=True)
    for column in ("A ms", "B ms", "B/A"):
        table.add_column(column, no_wrap=True, justify="right")
    for ratio in worst:
        table.add_row(Text(ratio.key), f"{ratio.before_ms:.4f}", f"{ratio.after_ms:.4f}", f"{ratio.value:.3f}")
    return table if worst else Text("")
