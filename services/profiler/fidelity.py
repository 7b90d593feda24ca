"""How far a table's predictions can be trusted (appendix E, Figure 3): sums, corrected sums, MACs.

A correlation alone hides bias, and multiply-accumulates alone are a strong predictor on a CPU: all stand side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypedDict

from fasterseg_core.latency_calibration import Calibration, PredictionError, prediction_error
from services.profiler.calibration import fit_calibration, predicted_by_macs
from services.profiler.measured_networks import MeasuredNetworks, NetworkLatency


class FidelityDocument(TypedDict):
    networks: list[dict[str, object]]
    left_out: dict[str, str]
    calibration: dict[str, object]
    errors: dict[str, dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """Held-out networks, the calibration fitted on others, and the errors of three predictors on the held-out ones."""

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
            "networks": networks,
            "left_out": dict(self.left_out),
            "calibration": dict(self.calibration.to_document()),
            "errors": {
                name: asdict(error)
                for name, error in (("sums", self.sums), ("calibrated", self.calibrated), ("macs", self.macs))
            },
        }


def report(measured: MeasuredNetworks, calibration_digests: Sequence[str]) -> FidelityReport:
    """The report over measured networks, of which those with the given digests calibrate and all others are held out.

    Raises:
        ValueError: too few networks of either kind could be measured; the message says why.
    """
    chosen = set(calibration_digests)
    fitted_on = [network for network in measured.networks if network.architecture in chosen]
    held_out = [network for network in measured.networks if network.architecture not in chosen]
    try:
        calibration = fit_calibration(fitted_on)
        measured_ms = [network.measured_ms for network in held_out]
        corrected = [calibration.milliseconds(n.predicted_ms, n.num_executed) for n in held_out]
        return FidelityReport(
            held_out=tuple(held_out),
            left_out=measured.left_out,
            calibration=replace(calibration, held_out=prediction_error(corrected, measured_ms)),
            sums=prediction_error([network.predicted_ms for network in held_out], measured_ms),
            macs=prediction_error(predicted_by_macs(held_out, fitted_on), measured_ms),
        )
    except ValueError as error:
        raise ValueError(f"{error}; left out: {dict(measured.left_out)}") from error
