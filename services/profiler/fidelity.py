"""How far a table's predictions can be trusted (appendix E, Figure 3): sums, corrected sums, MACs.

A correlation alone hides bias, and multiply-accumulates alone are a strong predictor on a CPU: all stand side by side.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypedDict

from fasterseg_core.latency_calibration import Calibration, PredictionError, prediction_error
from services.profiler.calibration import fit_calibration, predicted_by_macs
from services.profiler.measured_networks import MeasuredNetworks, NetworkLatency

Networks = tuple[NetworkLatency, ...]


class FidelityDocument(TypedDict):
    fitted_on: list[dict[str, object]]
    networks: list[dict[str, object]]
    left_out: dict[str, str]
    calibration: dict[str, object]
    errors: dict[str, dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """The calibration, the networks that it was fitted on, others, and the errors of three predictors on these."""

    fitted_on: tuple[NetworkLatency, ...]
    held_out: tuple[NetworkLatency, ...]
    left_out: Mapping[str, str]
    calibration: Calibration
    sums: PredictionError
    macs: PredictionError  # fitted on the networks of the calibration

    @property
    def calibrated_ms(self) -> list[float]:
        """The corrected prediction of each held-out network."""
        return [self.calibration.milliseconds(n.predicted_ms, n.num_executed) for n in self.held_out]

    @property
    def measured_ms(self) -> list[float]:
        """The measured latency of each held-out network."""
        return [network.measured_ms for network in self.held_out]

    @property
    def calibrated(self) -> PredictionError:
        """The error that users of the calibration have."""
        assert self.calibration.held_out is not None, "a report's calibration carries it"
        return self.calibration.held_out

    def to_document(self) -> FidelityDocument:
        """The report as plain JSON values."""
        networks = [
            asdict(network) | {"calibrated_ms": calibrated_ms}
            for network, calibrated_ms in zip(self.held_out, self.calibrated_ms, strict=True)
        ]
        return {
            "fitted_on": [asdict(network) for network in self.fitted_on],
            "networks": networks,
            "left_out": dict(self.left_out),
            "calibration": dict(self.calibration.to_document()),
            "errors": {
                name: asdict(error)
                for name, error in (("sums", self.sums), ("calibrated", self.calibrated), ("macs", self.macs))
            },
        }


def report(measured: MeasuredNetworks, calibration_networks: int) -> FidelityReport:
    """The report over networks in the order in which they were measured; so many of them calibrate, all others judge.

    Those that calibrate lie evenly among the others: a machine's speed drifts while networks are measured.

    Raises:
        ValueError: too few networks of either kind could be measured; the message says why.
    """
    fitted_on, held_out = _apart(measured.networks, calibration_networks)
    try:
        calibration = fit_calibration(fitted_on)
        measured_ms = [network.measured_ms for network in held_out]
        corrected = [calibration.milliseconds(n.predicted_ms, n.num_executed) for n in held_out]
        return FidelityReport(
            fitted_on=fitted_on,
            held_out=held_out,
            left_out=measured.left_out,
            calibration=replace(calibration, held_out=prediction_error(corrected, measured_ms)),
            sums=prediction_error([network.predicted_ms for network in held_out], measured_ms),
            macs=prediction_error(predicted_by_macs(held_out, fitted_on), measured_ms),
        )
    except ValueError as error:
        raise ValueError(f"{error}; left out: {dict(measured.left_out)}") from error


def _apart(networks: Networks, count: int) -> tuple[Networks, Networks]:
    """So many networks, evenly spaced, and the others."""
    count = min(count, len(networks))
    chosen = {int((i + 0.5) * len(networks) / count) for i in range(count)}
    return (
        tuple(network for i, network in enumerate(networks) if i in chosen),
        tuple(network for i, network in enumerate(networks) if i not in chosen),
    )
