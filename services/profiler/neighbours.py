"""What an operator takes within a network: it is measured between neighbours, and what these take is subtracted.

By itself an operator pays for what no network pays: an engine keeps maps in blocks of channels and reorders what enters
and what leaves, and it runs an upsampling or a concatenation that stands between convolutions in another way, or not
at all. So each map that an operator reads is written by a 1x1 convolution, and each that it writes is read by one.
These go from and to few channels, which costs little to reorder. Of each map, half of what its two neighbours take
with nothing between is subtracted.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from fasterseg_core.blocks import build_operator, neighbour_after, neighbour_before
from fasterseg_core.latency_table import LatencyRow, RowState
from fasterseg_core.operator_specs import NEIGHBOUR_CHANNELS, OperatorSpec, Structure, input_shapes
from fasterseg_core.search_space import Operator
from fasterseg_core.table_rows import has_after, has_before
from services.profiler.runners import Workload, random_workload

# An engine may do nothing for these, or do them with what is beside them; nothing else takes no time.
MAY_BE_FREE = (Operator.SKIP, Structure.UPSAMPLE, Structure.CONCAT)
LEAST_MS = 0.001  # of anything else: less cannot be told from nothing


class Between(nn.Module):
    """An operator and its neighbours: (B, NEIGHBOUR_CHANNELS, H, W) once for each map that the operator reads.

    A stem reads the image itself, the last upsampling writes the logits themselves, and neighbours stand by themselves.
    """

    def __init__(self, spec: OperatorSpec) -> None:
        super().__init__()
        self.operator = build_operator(spec)
        self.before = (
            nn.ModuleList(neighbour_before(shape[1]) for shape in input_shapes(spec)) if has_before(spec) else None
        )
        self.after = neighbour_after(spec.c_out) if has_after(spec) else nn.Identity()

    def forward(self, *maps: Tensor) -> Tensor:
        read = maps if self.before is None else [layer(x) for layer, x in zip(self.before, maps, strict=True)]
        written: Tensor = self.after(self.operator(*read))
        return written


def workload_between(spec: OperatorSpec) -> Workload:
    """An operator between its neighbours."""
    shapes = input_shapes(spec)
    if has_before(spec):
        shapes = tuple((1, NEIGHBOUR_CHANNELS, height, width) for _, _, height, width in shapes)
    return random_workload(partial(Between, spec), shapes)


def without_neighbours(
    spec: OperatorSpec, row: LatencyRow, neighbours: Sequence[LatencyRow], clock_error_ms: float
) -> LatencyRow:
    """The row of an operator that was measured between neighbours; zero where an engine does nothing for it.

    Quarantined where its neighbours are, or where they take longer without an operator that cannot be free, by more
    than the clock can err.
    """
    refused = next((other for other in neighbours if other.state is RowState.QUARANTINED), None)
    if refused is not None and row.state is RowState.MEASURED:
        row = replace(row, state=RowState.QUARANTINED, reason=f"its neighbours: {refused.reason}")
    if row.state is RowState.QUARANTINED:
        return row
    theirs = time_of(neighbours)
    least = LEAST_MS if neighbours and spec.operator not in MAY_BE_FREE else 0.0
    if least and row.milliseconds < theirs - clock_error_ms:
        reason = f"{row.milliseconds:.4f} ms between neighbours that take {theirs:.4f} ms alone: measure more passes"
        return replace(row, state=RowState.QUARANTINED, reason=reason)
    return replace(
        row,
        milliseconds=max(least, row.milliseconds - theirs),
        lower_quartile=max(least, row.lower_quartile - theirs),
        upper_quartile=max(least, row.upper_quartile - theirs),
    )


def time_of(neighbours: Sequence[LatencyRow]) -> float:
    """Milliseconds of the neighbours around an operator: of each map half of what both of its neighbours take."""
    return sum(row.milliseconds for row in neighbours) / 2
