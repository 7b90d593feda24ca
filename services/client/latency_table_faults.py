"""What is wrong with a latency table's document, fault by fault."""

import math
import re
from collections.abc import Iterator

from pydantic import BaseModel, JsonValue, ValidationError

from .latency_table import Fingerprint, Row
from .schemas import JsonObject

OPERATORS = (
    *("skip", "conv", "conv_x2", "zoomed_conv", "zoomed_conv_x2"),
    *("stem", "pointwise", "upsample", "concat", "prediction", "neighbours"),
)
MAY_BE_FREE = ("skip", "upsample", "concat")  # in an engine that does nothing for them
_NUMBER = "[1-9][0-9]*"
_KEY = re.compile(f"({'|'.join(OPERATORS)}) {_NUMBER}->{_NUMBER} {_NUMBER}x{_NUMBER} /{_NUMBER}")
_ROUNDING = 1e-9  # of quartiles that were interpolated


def table_faults(document: JsonObject) -> Iterator[str]:
    """Each fault with its place: a table without any can be searched with."""
    for name in document.keys() - {"fingerprint", "rows"}:
        yield f"{name}: unknown field"
    yield from _wrong_fields("fingerprint", Fingerprint, document.get("fingerprint"))
    rows = document.get("rows")
    if not isinstance(rows, dict) or not rows:
        yield "rows: there are none"
        return
    for key, values in sorted(rows.items()):
        place = f"row {key!r}"
        if not _KEY.fullmatch(key):
            yield f"{place}: not a canonical operator key such as 'conv 64->64 45x60 /1'"
        wrong = list(_wrong_fields(place, Row, values))
        yield from wrong or (f"{place}: {fault}" for fault in _row_faults(key, Row.model_validate(values)))


def _wrong_fields(place: str, model: type[BaseModel], values: JsonValue) -> Iterator[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            yield ": ".join([place, *map(str, item["loc"]), item["msg"]])


def _row_faults(key: str, row: Row) -> Iterator[str]:
    if not row.is_measured:
        yield f"{row.state}: {row.reason}; measure it anew with `fasterseg lut build --from TABLE`"
        return
    durations = (row.lower_quartile, row.milliseconds, row.upper_quartile)
    least = 0.0 if key.startswith(MAY_BE_FREE) else math.ulp(0.0)
    if not all(math.isfinite(duration) and duration >= least for duration in durations):
        numbers = " ".join(map(str, durations))
        note = f" ({row.reason})" if row.reason else ""
        yield f"lower quartile, milliseconds, upper quartile are {numbers}{note}: they must be finite and positive"
    elif not durations[0] * (1 - _ROUNDING) <= row.milliseconds <= durations[2] * (1 + _ROUNDING):
        yield f"milliseconds {row.milliseconds} do not lie between the quartiles {durations[0]} and {durations[2]}"
    elif row.samples < 1:
        yield f"samples: {row.samples}, must be positive"
