"""Latency tables as tables for people to read."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .display import labelled
from .latency_table import Fingerprint, LatencyTable
from .schemas import LatencyTableSummary

SHORT = 12  # digits of an id that people read
LIST_WIDTH = 106  # at least, for a list with nothing cut off; narrower terminals wrap it


def table_list(summaries: Iterable[LatencyTableSummary]) -> Table:
    """One row for each table."""
    table = Table(box=None, pad_edge=False)
    for column in ("ID", "ENGINE"):
        table.add_column(column, no_wrap=True)
    table.add_column("DEVICE", overflow="fold", min_width=16)
    for column in ("RESOLUTION", "ROWS", "QUARANTINED", "JOB", "CREATED"):
        table.add_column(column, no_wrap=True)
    for summary in summaries:
        fingerprint = Fingerprint.model_validate(summary.fingerprint).texts()
        values = (
            summary.id[:SHORT],
            fingerprint["engine"],
            fingerprint["device"],
            fingerprint["resolution"],
            str(summary.rows),
            str(summary.quarantined),
            summary.job or "added",
            f"{summary.created_at:%Y-%m-%d %H:%M}",
        )
        table.add_row(*(Text(value) for value in values))
    return table


def table_details(table: LatencyTable, key: str) -> RenderableType:
    """The fingerprint, and the rows whose keys contain a text."""
    return Group(labelled(table.fingerprint.texts().items()), _rows(table, key))


def _rows(table: LatencyTable, key: str) -> Table:
    rows = Table(box=None, pad_edge=False)
    rows.add_column("OPERATOR", no_wrap=True)
    for column in ("ms", "QUARTILES", "SAMPLES"):
        rows.add_column(column, no_wrap=True, justify="right")
    rows.add_column("", overflow="fold")
    for name, row in sorted(table.rows.items()):
        if key in name:
            quartiles = f"{row.lower_quartile:.4f} {row.upper_quartile:.4f}"
            clock = "" if row.sm_mhz is None else f"{row.sm_mhz} MHz"
            note = row.reason or clock if row.is_measured else f"{row.state}: {row.reason}"
            rows.add_row(Text(name), f"{row.milliseconds:.4f}", quartiles, str(row.samples), Text(note))
    return rows
