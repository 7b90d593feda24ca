"""The supernet's relaxed latency and its three-way regularisation (sec. 3.2, eq. 3).

The relaxed latency is the exact expectation over independent choices of every operator, path and width. Of a pair of
branches it counts both in full, since cells are shared only once they are derived.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.operator_specs import (
    OperatorSpec,
    aggregation_specs,
    cell_spec,
    prediction_specs,
    range_down,
    stem_spec,
)
from fasterseg_core.relaxation import Probabilities, Relaxation, crossings
from fasterseg_core.search_space import BRANCH_PAIRS, DOWNSAMPLE_RATES, OPERATORS, SearchSpace

SENSITIVITY_WEIGHTS = {8: 3 / 12, 16: 4 / 12, 32: 5 / 12}  # reference


@dataclass(frozen=True)
class SpaceLatency:
    """A table's numbers as tensors in milliseconds, for one set of ratios between a stem and a head.

    cells: (s, stride) -> (ratios in, ratios out, operators); aggregation: s -> (ratios of the finer map,), the step
    from s to s/2; stem and prediction (two branches fused) are scalars. `end` is the index of the ends' ratio.
    """

    space: SearchSpace
    cells: Mapping[tuple[int, int], Tensor]
    aggregation: Mapping[int, Tensor]
    stem: float
    prediction: float
    end: int


def space_latency(space: SearchSpace, relaxation: Relaxation, table: LatencyTable) -> SpaceLatency:
    """The table's numbers for one relaxation.

    Raises:
        MissingLatencyError: the table lacks an operator of this space.
    """
    resolution, ratios, end_ratio = table.fingerprint.resolution, relaxation.ratios, relaxation.end_ratio
    device = next(relaxation.parameters()).device
    cells = {}
    for rate in DOWNSAMPLE_RATES:
        for stride in (1,) if rate == DOWNSAMPLE_RATES[-1] else (1, 2):
            cells[rate, stride] = torch.tensor(
                [
                    [
                        [
                            table.milliseconds(
                                cell_spec(
                                    operator,
                                    rate=rate,
                                    stride=stride,
                                    ratio_in=ratio_in,
                                    ratio_out=ratio_out,
                                    resolution=resolution,
                                )
                            )
                            for operator in OPERATORS
                        ]
                        for ratio_out in ratios
                    ]
                    for ratio_in in ratios
                ],
                device=device,
            )
    aggregation = {
        rate: torch.tensor(
            [_total(table, aggregation_specs(rate, ratio * rate // 2, end_ratio, resolution)) for ratio in ratios],
            device=device,
        )
        for rate in DOWNSAMPLE_RATES[1:]
    }
    return SpaceLatency(
        space=space,
        cells=cells,
        aggregation=aggregation,
        stem=table.milliseconds(stem_spec(end_ratio, resolution)),
        prediction=_total(table, prediction_specs(2, end_ratio, resolution, table.fingerprint.num_classes)),
        end=ratios.index(end_ratio),
    )


def relaxed_latency(probabilities: Probabilities, latency: SpaceLatency) -> Tensor:
    """The expected latency in milliseconds of the mean pair of branches, a scalar differentiable in its arguments."""
    branch = _branches(probabilities, latency)
    pairs = torch.stack([branch[a] + branch[b] for a, b in BRANCH_PAIRS])
    return latency.stem + pairs.mean() + latency.prediction


def regularised_latency(
    probabilities: Probabilities, latency: SpaceLatency, weights: tuple[float, float, float]
) -> Tensor:
    """Eq. 3: the latency as a function of operators, of rates and of ratios alone, weighted by w1, w2, w3.

    The three have one value, and each moves its own granularity only: so this is one latency, the gradient of each
    granularity multiplied by its weight.
    """
    w1, w2, w3 = weights
    view = Probabilities(
        _with_gradient(probabilities.alpha, w1),
        _with_gradient(probabilities.beta, w2),
        _with_gradient(probabilities.gamma, w3),
    )
    value = relaxed_latency(view, latency)
    return value + (sum(weights) - 1) * value.detach()


def sensitivities(relaxation: Relaxation, latency: SpaceLatency) -> tuple[float, float, float]:
    """How far operators, rates and ratios each move the latency of the cells, in milliseconds (Table 2).

    One granularity at a time puts all its mass on one choice everywhere; the sensitivity is the gap between the slowest
    choice and the fastest. Meanwhile operators and rates are uniform, ratios the widest, and the branches of 8, 16 and
    32 weigh 3 : 4 : 5 (reference).
    """
    cells = replace(latency, aggregation={rate: torch.zeros_like(ms) for rate, ms in latency.aggregation.items()})
    with torch.no_grad():
        zeros = {name: torch.zeros_like(value) for name, value in relaxation.state_dict().items()}
        widest = {name: _certain(value, -1) for name, value in zeros.items() if name.startswith("gamma")}
        gaps = []
        for granularity in ("alpha", "beta", "gamma"):
            names = [name for name in zeros if name.startswith(granularity)]
            times = []
            for choice in range(zeros[names[0]].shape[1]):
                state = {**zeros, **widest, **{name: _certain(zeros[name], choice) for name in names}}
                branch = _branches(_probabilities_of(state), cells)
                times.append(float(sum(weight * branch[rate] for rate, weight in SENSITIVITY_WEIGHTS.items())))
            gaps.append(max(times) - min(times))
    return gaps[0], gaps[1], gaps[2]


def balanced_weights(gaps: tuple[float, float, float]) -> tuple[float, float, float]:
    """w1, w2, w3 that sum to 1 and make every granularity equally sensitive (sec. 3.2, footnote 1).

    Raises:
        ValueError: a granularity does not move the latency at all, so no weight can balance it.
    """
    if min(gaps) <= 0:
        raise ValueError(f"sensitivities {gaps} ms: all must be positive to balance them; give granularity_weights")
    inverse = [1 / gap for gap in gaps]
    first, second, third = (value / sum(inverse) for value in inverse)
    return first, second, third


def _branches(probabilities: Probabilities, latency: SpaceLatency) -> dict[int, Tensor]:
    """The expected latency of the branch of each rate, its cells and its aggregation, a scalar in milliseconds."""
    space, num_layers = latency.space, latency.space.num_layers
    alpha = {rate: _by_layer(rows, space.first_layer(rate)) for rate, rows in probabilities.alpha.items()}
    into = {rate: _widths_into(probabilities.gamma[rate], rate, latency) for rate in DOWNSAMPLE_RATES}
    cost = {
        (rate, stride): torch.einsum(
            "lk,li,lo,iok->l", alpha[rate], into[rate][:num_layers], into[rate * stride][1:], table
        )
        for (rate, stride), table in latency.cells.items()
    }
    crossed = crossings(space, probabilities.beta)
    branch = {}
    for rate in DOWNSAMPLE_RATES:
        visits = _visits(crossed, rate, num_layers)
        total = sum((visited * cost[place] for place, visited in visits.items()), torch.zeros(())).sum()
        for source in range_down(rate):
            finer = source // 2  # its last map is what the cell reads that leaves this rate
            total = total + visits[finer, 2] @ into[finer][:num_layers] @ latency.aggregation[source]
        branch[rate] = total
    return branch


def _certain(rows: Tensor, choice: int) -> Tensor:
    """Logits like these with all mass on one column."""
    logits = torch.full_like(rows, -1e4)
    logits[:, choice] = 0
    return logits


def _probabilities_of(logits: Mapping[str, Tensor]) -> Probabilities:
    """Probabilities from a relaxation's state: names such as "alpha.8"."""
    rows: dict[str, dict[int, Tensor]] = {"alpha": {}, "beta": {}, "gamma": {}}
    for name, value in logits.items():
        granularity, rate = name.split(".")
        rows[granularity][int(rate)] = torch.softmax(value, dim=1)
    return Probabilities(**rows)


def _total(table: LatencyTable, specs: tuple[OperatorSpec, ...]) -> float:
    return sum(table.milliseconds(spec) for spec in specs)


def _with_gradient(rows: Mapping[int, Tensor], weight: float) -> dict[int, Tensor]:
    """The same rows, whose gradient is multiplied by a weight."""
    return {rate: row.detach() + weight * (row - row.detach()) for rate, row in rows.items()}


def _by_layer(rows: Tensor, first: int) -> Tensor:
    """Rows from a first layer on, with rows of zeros before it."""
    return torch.cat([rows.new_zeros(first, rows.shape[1]), rows])


def _widths_into(gamma: Tensor, rate: int, latency: SpaceLatency) -> Tensor:
    """(L + 1, ratios): how the width of what enters cell (rate, l) is distributed; row L is the head."""
    end = torch.eye(gamma.shape[1], dtype=gamma.dtype, device=gamma.device)[latency.end : latency.end + 1]
    stem = [end] if rate == DOWNSAMPLE_RATES[0] else []
    rows = torch.cat([*stem, gamma, end])
    return _by_layer(rows, latency.space.num_layers + 1 - len(rows))


def _visits(crossed: Mapping[int, Tensor], rate: int, num_layers: int) -> dict[tuple[int, int], Tensor]:
    """(s, stride) -> (L,): the probability that the path of a branch takes this output of cell (s, l)."""
    if rate == 8:
        return {(8, 1): crossed[16].new_ones(num_layers)}
    to_16 = crossed[16] if rate == 16 else crossed[32].sum(dim=1)
    entered_16 = to_16.cumsum(0) - to_16  # by layer: the path is already in scale 16
    visits = {(8, 1): 1 - entered_16 - to_16, (8, 2): to_16}
    if rate == 16:
        return {**visits, (16, 1): entered_16}
    to_32 = crossed[32].sum(dim=0)
    entered_32 = to_32.cumsum(0) - to_32
    return {**visits, (16, 1): entered_16 - entered_32 - to_32, (16, 2): to_32, (32, 1): entered_32}
