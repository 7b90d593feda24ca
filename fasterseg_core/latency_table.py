"""A latency table: operator -> milliseconds on one device, and how and where they were measured (appendix E)."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, TypedDict

from fasterseg_core.architecture import Architecture
from fasterseg_core.operator_specs import OperatorSpec, architecture_specs
from fasterseg_core.search_space import Resolution


class MissingLatencyError(KeyError):
    """The table has no usable row for an operator; the message names the operator and the table."""

    def __str__(self) -> str:
        return str(self.args[0])


class RowState(StrEnum):
    """A row's reason says why it was quarantined, which blocks what needs it, or why a measured one is noisy."""

    MEASURED = "measured"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """The milliseconds of one operator, the quartiles of its samples, and how many there were (see the protocol).

    On a GPU also the lowest clock of its multiprocessors beside these samples, in MHz.

    Raises:
        ValueError: a duration is negative, infinite or not a number, or the quartiles are out of order.
    """

    milliseconds: float
    lower_quartile: float
    upper_quartile: float
    samples: int
    state: RowState = RowState.MEASURED
    reason: str = ""
    sm_mhz: int | None = None

    def __post_init__(self) -> None:
        for name in ("milliseconds", "lower_quartile", "upper_quartile"):
            duration = getattr(self, name)
            if not (math.isfinite(duration) and duration >= 0):
                raise ValueError(f"{name} {duration} must be finite and not negative")
        if self.lower_quartile > self.upper_quartile:
            raise ValueError(f"lower_quartile {self.lower_quartile} is above upper_quartile {self.upper_quartile}")
        if self.samples < 0:
            raise ValueError(f"samples {self.samples} must not be negative")

    @property
    def is_sound(self) -> bool:
        """Whether it was measured without doubt; any other is measured anew where a table is taken over."""
        return self.state is RowState.MEASURED and not self.reason

    def to_document(self) -> dict[str, object]:
        """The row as plain JSON values; a clock only where there is one."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a table's numbers depend on; two tables with different fingerprints are never mixed."""

    engine: str
    engine_version: str
    device: str
    driver: str
    threads: int
    precision: str
    protocol: str  # how time was taken: the clock, the estimate, passes and samples
    resolution: Resolution
    num_classes: int
    interpolation: str = "bilinear, corners aligned"

    @property
    def digest(self) -> str:
        """The sha256 of the fingerprint, in hex."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()


class LatencyTableDocument(TypedDict):
    fingerprint: dict[str, object]
    rows: dict[str, dict[str, object]]


@dataclass(frozen=True)
class LatencyTable:
    """Immutable rows of one fingerprint, content-addressed."""

    fingerprint: Fingerprint
    rows: Mapping[OperatorSpec, LatencyRow]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", MappingProxyType(dict(self.rows)))

    def milliseconds(self, spec: OperatorSpec) -> float:
        """The latency of one operator.

        Raises:
            MissingLatencyError: no row, or a quarantined one.
        """
        row = self.rows.get(spec)
        if row is None:
            raise MissingLatencyError(f"latency table {self.digest[:12]} has no entry for {spec.key!r}")
        if row.state is RowState.QUARANTINED:
            raise MissingLatencyError(
                f"latency table {self.digest[:12]} has quarantined its entry for {spec.key!r}: {row.reason}"
            )
        return row.milliseconds

    def missing(self, specs: Iterable[OperatorSpec]) -> list[OperatorSpec]:
        """The operators without a usable row."""
        return [spec for spec in specs if spec not in self.rows or self.rows[spec].state is RowState.QUARANTINED]

    def to_document(self) -> LatencyTableDocument:
        """The table as plain JSON values, rows sorted by key."""
        return {
            "fingerprint": asdict(self.fingerprint),
            "rows": {
                spec.key: row.to_document() for spec, row in sorted(self.rows.items(), key=lambda item: item[0].key)
            },
        }

    @classmethod
    def from_document(cls, document: LatencyTableDocument) -> "LatencyTable":
        """The table of a document.

        Raises:
            ValueError: a field is missing, unknown or out of range; the message names the row.
        """
        try:
            fields = dict(document["fingerprint"])
            resolution = Resolution(**fields.pop("resolution"))  # type: ignore[arg-type]
            fingerprint = Fingerprint(resolution=resolution, **fields)  # type: ignore[arg-type]
        except (TypeError, KeyError) as error:
            raise ValueError(f"fingerprint: {error}") from error
        rows = {}
        for key, values in document["rows"].items():
            try:
                rows[OperatorSpec.from_key(key)] = _row(values)
            except ValueError as error:
                raise ValueError(f"row {key!r}: {error}") from error
        return cls(fingerprint, rows)

    @property
    def digest(self) -> str:
        """The sha256 of the canonical document, in hex; the table's id. The order of rows does not matter."""
        return hashlib.sha256(_canonical(self.to_document()).encode()).hexdigest()


class OperatorLatency(NamedTuple):
    """One operator of a network, the part it belongs to, and its row's milliseconds."""

    part: str  # stem, cells, aggregation or prediction
    spec: OperatorSpec
    milliseconds: float


@dataclass(frozen=True)
class LatencyEstimate:
    """The predicted latency of a network, operator by operator in the order of execution."""

    operators: tuple[OperatorLatency, ...]

    @cached_property
    def parts(self) -> dict[str, float]:
        """Milliseconds of the stem, cells, aggregation and prediction."""
        parts: dict[str, float] = {}
        for operator in self.operators:
            parts[operator.part] = parts.get(operator.part, 0.0) + operator.milliseconds
        return parts

    @property
    def milliseconds(self) -> float:
        """Of the whole network."""
        return sum(self.parts.values())

    @property
    def num_executed(self) -> int:
        """How many operators an engine executes: all but identities."""
        return sum(not operator.spec.is_identity for operator in self.operators)


def estimate(architecture: Architecture, table: LatencyTable) -> LatencyEstimate:
    """The latency of a network as the sum of its operators' (appendix E).

    Raises:
        MissingLatencyError: the table lacks an operator of this network.
    """
    fingerprint = table.fingerprint
    return LatencyEstimate(
        tuple(
            OperatorLatency(part, spec, table.milliseconds(spec))
            for part, spec in architecture_specs(architecture, fingerprint.resolution, fingerprint.num_classes)
        )
    )


_ROW_FIELDS: dict[str, tuple[type, ...]] = {
    "milliseconds": (int, float),
    "lower_quartile": (int, float),
    "upper_quartile": (int, float),
    "samples": (int,),
    "state": (str,),
    "reason": (str,),
    "sm_mhz": (int,),
}
_OPTIONAL_FIELDS = ("sm_mhz",)


def _row(values: dict[str, object]) -> LatencyRow:
    """The row of a document's values; nothing is converted, so that one table never has two digests."""
    unknown = sorted(values.keys() - _ROW_FIELDS.keys())
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; a row has {', '.join(_ROW_FIELDS)}")
    for name, kinds in _ROW_FIELDS.items():
        if name not in values:
            if name in _OPTIONAL_FIELDS:
                continue
            raise ValueError(f"{name} is missing")
        if not isinstance(values[name], kinds) or isinstance(values[name], bool):
            raise ValueError(f"{name} {values[name]!r} is not {'a text' if str in kinds else 'a number'}")
    return LatencyRow(**{**values, "state": RowState(values["state"])})  # type: ignore[arg-type]  # checked above


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
