"""The correction of a table's sums, fitted on a few networks measured whole (appendix E); raw rows stay as they are.

A network takes a little longer or shorter than its operators: it fills the caches in another way.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import correlation
from typing import TypedDict

from fasterseg_core.latency_table import LatencyRow, LatencyTable, RowState
from fasterseg_core.operator_specs import OperatorSpec, Structure


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """How predictions of networks compare with their measurements; errors are shares of the measured, 0.01 is 1 %."""

    networks: int
    pearson_r: float
    kendall_tau: float  # the share of pairs in the right order less the share in the wrong one
    mape: float  # mean absolute error
    bias: float  # mean error: negative where networks take longer than predicted
    worst: float  # largest absolute error


class CalibrationDocument(TypedDict):
    slope: float
    operator_ms: float
    fixed_ms: float
    fitted_on: list[str]
    held_out: dict[str, object] | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """milliseconds = slope * sum + operator_ms * operators + fixed_ms; of the three only the last may be negative.

    `fitted_on` are digests of architectures, `held_out` is the error on others, where others were measured.
    """

    slope: float
    operator_ms: float
    fixed_ms: float
    fitted_on: tuple[str, ...]
    held_out: PredictionError | None = None

    def __post_init__(self) -> None:
        for name in ("slope", "operator_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite and not negative")
        if not abs(self.fixed_ms) < float("inf"):
            raise ValueError(f"fixed_ms is {self.fixed_ms}; it must be finite")

    def milliseconds(self, sum_ms: float, num_executed: int) -> float:
        """The corrected latency of a network: of its operators' sum and how many an engine executes."""
        return self.slope * sum_ms + self.operator_ms * num_executed + self.fixed_ms

    def corrected(self, table: LatencyTable) -> LatencyTable:
        """The table whose plain sums are the corrected latencies, for a search; `fixed_ms` goes to the stem."""

        def correct(spec: OperatorSpec, row: LatencyRow) -> LatencyRow:
            if row.state is RowState.QUARANTINED or spec.operator is Structure.NEIGHBOURS:
                return row
            added = self.operator_ms * (not spec.is_identity) + self.fixed_ms * (spec.operator is Structure.STEM)
            return replace(
                row,
                milliseconds=self.slope * row.milliseconds + added,
                lower_quartile=self.slope * row.lower_quartile + added,
                upper_quartile=self.slope * row.upper_quartile + added,
            )

        return LatencyTable(table.fingerprint, {spec: correct(spec, row) for spec, row in table.rows.items()})

    def to_document(self) -> CalibrationDocument:
        """The calibration as plain JSON values."""
        return {
            "slope": self.slope,
            "operator_ms": self.operator_ms,
            "fixed_ms": self.fixed_ms,
            "fitted_on": list(self.fitted_on),
            "held_out": None if self.held_out is None else asdict(self.held_out),
        }

    @classmethod
    def from_document(cls, document: CalibrationDocument) -> "Calibration":
        """The calibration of a document; ValueError where a field is missing or out of range."""
        try:
            held_out = document["held_out"]
            return cls(
                slope=document["slope"],
                operator_ms=document["operator_ms"],
                fixed_ms=document["fixed_ms"],
                fitted_on=tuple(document["fitted_on"]),
                held_out=None if held_out is None else PredictionError(**held_out),  # type: ignore[arg-type]
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"calibration: {error}") from error


def prediction_error(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> PredictionError:
    """Predictions against measurements of the same networks; ValueError where there are fewer than two."""
    if len(measured_ms) < 2:
        raise ValueError(f"a comparison needs two or more networks, not {len(measured_ms)}")
    errors = [predicted / measured - 1 for predicted, measured in zip(predicted_ms, measured_ms, strict=True)]
    return PredictionError(
        networks=len(errors),
        pearson_r=correlation(predicted_ms, measured_ms),
        kendall_tau=_kendall_tau(predicted_ms, measured_ms),
        mape=sum(abs(error) for error in errors) / len(errors),
        bias=sum(errors) / len(errors),
        worst=max(abs(error) for error in errors),
    )


def _kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    products = [(a - b) * (x - y) for (a, x), (b, y) in combinations(zip(first, second, strict=True), 2)]
    return sum((product > 0) - (product < 0) for product in products) / len(products)
