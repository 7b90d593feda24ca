"""Fits a table's correction, and that of the simplest predictor, MACs, on networks measured whole (appendix E)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fasterseg_core.latency_calibration import Calibration
from services.profiler.measured_networks import NetworkLatency

SMALLEST = 3  # networks, as many as there are coefficients

Values = NDArray[np.float64]


def fit_calibration(networks: Sequence[NetworkLatency]) -> Calibration:
    """The coefficients, none negative, of the least squared relative error on these networks.

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
    """Non-negative least squares of relative errors, exactly: the best of all subsets of the columns."""
    measured = np.array([network.measured_ms for network in networks])
    columns = np.array(features) / measured[:, None]
    best, smallest = np.zeros(columns.shape[1]), np.inf
    for size in range(1, columns.shape[1] + 1):
        for chosen in combinations(range(columns.shape[1]), size):
            solution = _least_squares(columns, chosen)
            residual = float(((columns @ solution - 1) ** 2).sum())
            if solution.min() >= 0 and residual < smallest:
                best, smallest = solution, residual
    return [float(value) for value in best]


def _least_squares(columns: Values, chosen: tuple[int, ...]) -> Values:
    """What solves columns @ x = 1 best with only the chosen entries of x."""
    scale = np.abs(columns).max(axis=0)
    solution = np.zeros(columns.shape[1])
    solution[list(chosen)] = np.linalg.lstsq(columns[:, chosen] / scale[list(chosen)], np.ones(len(columns)))[0]
    return np.asarray(solution / scale, dtype=np.float64)
