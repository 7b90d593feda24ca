"""An export job: the trained network as ONNX, checked against torch, its latency predicted and measured."""

import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median

import numpy as np

from fasterseg_core.config import ExportConfig, NetworkOutput
from fasterseg_core.deployment import DeployedNetwork
from fasterseg_core.latency_calibration import Calibration
from fasterseg_core.latency_table import LatencyEstimate, LatencyRow, LatencyTable, RowState, estimate
from fasterseg_core.network import SegmentationNetwork, load_network
from fasterseg_core.operator_specs import architecture_specs
from fasterseg_core.table_rows import canary_spec
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess
from services.profiler.errors import MeasurementError
from services.profiler.protocol import measure, protocol_of
from services.profiler.runners import Runner, Workload, operator_workload, verify
from services.profiler.table_builder import canary_of
from services.workers.following import follow_measurement
from services.workers.job import Job, config_of
from services.workers.latency_tables import read_calibration, read_table
from services.workers.measuring import runner_alone
from services.workers.outputs import json_object, store

UNCALIBRATED_TOLERANCE = 0.1  # of sums that no network measured whole has corrected
SAME_SPEED = 0.15  # a machine of the table's fingerprint that is off by more is another, or busy: nothing is judged


class Verdict(StrEnum):
    """Whether a measurement lies as far from its prediction as held-out networks did, or farther."""

    AS_PREDICTED = "as predicted"
    SLOWER = "slower than predicted"
    FASTER = "faster than predicted"
    OTHER_MACHINE = "the machine is not as fast as when the table was measured"


def run(job: Job, attempt: AttemptClient) -> None:
    """Exports the network, refuses an ONNX that computes something else, and measures it on the spec's engine."""
    config = config_of(job, ExportConfig)
    assert job.inputs.network is not None, "the control plane refuses an export without a network"
    network = load_network(attempt.download(job.inputs.network))
    deployed = DeployedNetwork(network, config.output).eval()
    workload = Workload(deployed, ((1, 3, config.resolution.height, config.resolution.width),))
    specs = [spec for _, spec in architecture_specs(network.architecture, config.resolution, network.num_classes)]
    with runner_alone(config, job, attempt) as runner:
        table, calibration = _table(job, runner, attempt)
        prediction = None if table is None else _prediction(table, calibration, config.output, network)
        canary, then_ms = (operator_workload(canary_spec(specs)), None) if table is None else canary_of(table.rows)
        row, canary_ms = _measured(workload, canary, runner, config, attempt)
        host_ms = _host_ms(workload, runner, config.samples)
        difference = _difference(workload, runner, config.output)
        files = {"network.onnx": workload.onnx} | runner.built(workload)
    slowdown = 1.0 if then_ms is None else canary_ms / then_ms
    result = {
        **({} if prediction is None else prediction.judged(row.milliseconds, slowdown, config.output)),
        "output": config.output,
        "measured_ms": row.milliseconds,
        "measured_quartiles_ms": [row.lower_quartile, row.upper_quartile],
        "engine": f"{runner.identity.engine} {runner.identity.engine_version}",
        "clock": runner.identity.clock,
        "host_ms": host_ms,
        **difference,
        "parameters": network.num_parameters(),
        "macs": sum(spec.macs for spec in specs),
    }
    artifacts = [store(attempt, name, data) for name, data in files.items()]
    attempt.succeed(AttemptSuccess(result=json_object(result), artifacts=artifacts))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A network's predicted milliseconds, and the share by which its measurement may differ as predictions do.

    The predicted milliseconds of labels are those of the coarse logits: how long labels take depends on the image.
    """

    sum_ms: float
    predicted_ms: float  # the corrected sum, where the table has a calibration
    tolerance: float

    def judged(self, measured_ms: float, slowdown: float, output: NetworkOutput) -> dict[str, object]:
        """The prediction beside the measurement, with a verdict for people and for CI, though none on labels.

        A prediction is at the speed at which the table was measured; `slowdown` says how many times as long the
        machine takes now.
        """
        if output is NetworkOutput.LABELS:
            return asdict(self) | {"slowdown": slowdown}
        difference = measured_ms / slowdown / self.predicted_ms - 1
        verdict = Verdict.SLOWER if difference > 0 else Verdict.FASTER
        if abs(difference) <= self.tolerance:
            verdict = Verdict.AS_PREDICTED
        if abs(slowdown - 1) > SAME_SPEED:
            verdict = Verdict.OTHER_MACHINE
        return asdict(self) | {"slowdown": slowdown, "difference": difference, "verdict": verdict}


def _table(job: Job, runner: Runner, attempt: AttemptClient) -> tuple[LatencyTable | None, Calibration | None]:
    """The table that was given, if any, and its calibration, if it has one; they must be of what measures here.

    Raises:
        ValueError: the table is of another engine, version, device, driver, number of threads or precision.
    """
    table_id = job.inputs.latency_table
    if table_id is None:
        return None, None
    table = read_table(attempt, table_id)
    here = asdict(runner.identity)
    for name in ("engine", "engine_version", "device", "driver", "threads", "precision"):
        of_table = getattr(table.fingerprint, name)
        if of_table != here[name]:
            raise ValueError(f"inputs.latency_table: its {name} is {of_table}, but {here[name]} measures here")
    return table, read_calibration(attempt, table_id)


def _prediction(
    table: LatencyTable, calibration: Calibration | None, output: NetworkOutput, network: SegmentationNetwork
) -> Prediction:
    """The table's estimate, corrected where the table has a calibration.

    Raises:
        MissingLatencyError: the table lacks an operator of this network.
    """
    latency = estimate(network.architecture, table)
    if output is not NetworkOutput.LOGITS:
        latency = LatencyEstimate(latency.operators[:-1])  # all but the upsampling to the image's size
    if calibration is None:
        return Prediction(
            sum_ms=latency.milliseconds, predicted_ms=latency.milliseconds, tolerance=UNCALIBRATED_TOLERANCE
        )
    return Prediction(
        sum_ms=latency.milliseconds,
        predicted_ms=calibration.milliseconds(latency.milliseconds, latency.num_executed),
        tolerance=calibration.held_out.worst if calibration.held_out else UNCALIBRATED_TOLERANCE,
    )


def _measured(
    workload: Workload, canary: Workload, runner: Runner, config: ExportConfig, attempt: AttemptClient
) -> tuple[LatencyRow, float]:
    """The network's latency by the protocol of tables, at the machine's speed of now, and the canary's milliseconds.

    Raises:
        MeasurementError: the machine was too restless, or the engine's output is not torch's.
    """
    measuring = measure(
        {"network": lambda: workload, "canary": lambda: canary},
        canary,
        runner,
        protocol_of(config),
    )
    rows = follow_measurement(measuring, "measure", 0.0, 1.0, attempt)
    for row in rows.values():
        if row.state is RowState.QUARANTINED:
            raise MeasurementError(row.reason)
    return rows["network"], rows["canary"].milliseconds


def _difference(workload: Workload, runner: Runner, output: NetworkOutput) -> dict[str, float]:
    """The engine's output against torch's on a random image: by how much logits differ, or the share of labels."""
    if output is NetworkOutput.LABELS:
        return {"differing_pixels": verify(runner, workload)}
    inputs = workload.random_inputs()
    return {"max_difference": float(np.abs(runner.run(workload, inputs) - workload.reference(inputs)).max())}


def _host_ms(workload: Workload, runner: Runner, samples: int) -> float:
    """What a caller waits for, on the wall clock: from an image in the host's memory to its logits there."""
    inputs = workload.random_inputs()
    seconds = []
    for _ in range(samples):
        started = time.perf_counter()
        runner.run(workload, inputs)
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1e3
