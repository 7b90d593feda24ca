"""A latency table as clients read it: its document's fingerprint and rows, and the digest that is its id."""

import hashlib
import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from .schemas import JsonObject


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resolution(_Strict):
    height: int
    width: int


class Fingerprint(_Strict):
    """What a table's numbers depend on."""

    engine: str
    engine_version: str
    device: str
    driver: str
    threads: int
    precision: str
    protocol: str
    resolution: Resolution
    num_classes: int
    interpolation: str

    def texts(self) -> dict[str, str]:
        """Each field for people to read."""
        size = f"{self.resolution.height}x{self.resolution.width}"
        return {**{name: str(value) for name, value in self}, "resolution": size}


class Row(_Strict):
    """The milliseconds of an operator, the quartiles of its samples, and the lowest clock of a GPU beside them."""

    milliseconds: float
    lower_quartile: float
    upper_quartile: float
    samples: int
    state: str
    reason: str
    sm_mhz: int | None = None

    @property
    def is_measured(self) -> bool:
        """Whether its numbers may be used: a quarantined row's reason says why not."""
        return self.state == "measured"


class LatencyTable(_Strict):
    fingerprint: Fingerprint
    rows: dict[str, Row]


def merged_table(tables: Sequence[LatencyTable]) -> LatencyTable:
    """All rows of tables of one fingerprint: of each the first that is measured, or else the first.

    Raises:
        ValueError: the fingerprints differ; the message says in what.
    """
    first, *others = tables
    wanted = first.fingerprint.texts()
    rows = dict(first.rows)
    for number, table in enumerate(others, start=2):
        found = table.fingerprint.texts()
        differing = [f"{name} {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]]
        if differing:
            raise ValueError(f"table {number} has another fingerprint than the first: {'; '.join(differing)}")
        rows |= {key: row for key, row in table.rows.items() if key not in rows or not rows[key].is_measured}
    return LatencyTable(fingerprint=first.fingerprint, rows=rows)


def canonical_json(document: JsonObject) -> str:
    """The one text of a table, whose sha256 is its id."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def table_digest(document: JsonObject) -> str:
    """The id that a table's document has."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()
