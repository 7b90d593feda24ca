"""Fits a table's correction, and that of the simplest predictor, MACs, on networks measured whole (appendix E)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fasterseg_core.latency_calibration import Calibration
from services.profiler.measured_networks import NetworkLatency

SMALLEST = 3  # networks, as many as there are coefficients
MOST_TAKEN_AWAY = 0.1  # of the fastest network, by the constant

Values = NDArray[np.float64]


def fit_calibration(networks: Sequence[NetworkLatency]) -> Calibration:
    """The coefficients of the least squared relative error on these networks.

    None is negative but the constant: what all networks of a space have, such as the last upsampling, may take less
    time within a network than in the table. It takes away at most a tenth of the fastest network, so that no estimate
    is negative.

    Raises:
        ValueError: fewer networks than coefficients.
    """
    if len(networks) < SMALLEST:
        raise ValueError(f"a calibration needs {SMALLEST} or more networks, not {len(networks)}")
    features = [[network.predicted_ms, network.num_executed, 1.0] for network in networks]
    slope, operator_ms, fixed_ms = _coefficients(features, networks)
    return Calibration(
        slope=slope,
        operator_ms=operator_ms,
        fixed_ms=fixed_ms,
        fitted_on=tuple(network.architecture for network in networks),
    )


def predicted_by_macs(networks: Sequence[NetworkLatency], fitted_on: Sequence[NetworkLatency]) -> list[float]:
    """Milliseconds of networks from their multiply-accumulates alone, by the same fit on the same networks."""
    per_mac, fixed_ms = _coefficients([[network.macs, 1.0] for network in fitted_on], fitted_on)
    return [per_mac * network.macs + fixed_ms for network in networks]


def _coefficients(features: list[list[float]], networks: Sequence[NetworkLatency]) -> list[float]:
    """Least squares of relative errors with lower bounds, exactly: the best of all choices of entries at bounds."""
    measured = np.array([network.measured_ms for network in networks])
    columns = np.array(features) / measured[:, None]
    count = columns.shape[1]
    bounds = np.zeros(count)
    bounds[-1] = -MOST_TAKEN_AWAY * measured.min()  # the last feature is the constant
    candidates = [
        _least_squares(columns, free, bounds) for size in range(count + 1) for free in combinations(range(count), size)
    ]
    allowed = [candidate for candidate in candidates if np.all(candidate >= bounds)]
    best = min(allowed, key=lambda candidate: float(((columns @ candidate - 1) ** 2).sum()))
    return [float(value) for value in best]


def _least_squares(columns: Values, free: tuple[int, ...], bounds: Values) -> Values:
    """What solves columns @ x = 1 best, all entries of x at their bounds but the free ones."""
    solution = bounds.copy()
    if free:
        chosen = list(free)
        solution[chosen] = 0.0
        scale = np.abs(columns[:, chosen]).max(axis=0)
        rest = np.ones(len(columns)) - columns @ solution
        solution[chosen] = np.linalg.lstsq(columns[:, chosen] / scale, rest)[0] / scale
    return solution
