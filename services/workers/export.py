"""An export job: the trained network as ONNX, checked against torch, its latency predicted and measured."""

from dataclasses import asdict
from typing import cast

import numpy as np

from fasterseg_core.config import ExportConfig
from fasterseg_core.latency_table import LatencyRow, LatencyTable, LatencyTableDocument, RowState, estimate
from fasterseg_core.network import SegmentationNetwork, load_network
from fasterseg_core.operator_specs import architecture_specs
from services.client.attempt import AttemptClient
from services.client.schemas import AttemptSuccess
from services.profiler.engines import open_runner
from services.profiler.protocol import Protocol, measure
from services.profiler.runners import MeasurementError, Runner, Workload
from services.workers.following import follow_measurement
from services.workers.job import Job, config_of
from services.workers.outputs import json_object, store


def run(job: Job, attempt: AttemptClient) -> None:
    """Exports the network, refuses an ONNX that computes something else, and measures it on the spec's engine."""
    config = config_of(job, ExportConfig)
    assert job.inputs.network is not None, "the control plane refuses an export without a network"
    network = load_network(attempt.download(job.inputs.network))
    runner = open_runner(config.engine, config.threads, config.precision)
    predicted_ms = _predicted_ms(job, runner, network, attempt)
    workload = Workload(network, ((1, 3, config.resolution.height, config.resolution.width),))
    row = _measured(workload, runner, config, attempt)
    specs = architecture_specs(network.architecture, config.resolution, network.num_classes)
    attempt.succeed(
        AttemptSuccess(
            result=json_object(
                {
                    "predicted_ms": predicted_ms,
                    "measured_ms": row.milliseconds,
                    "measured_quartiles_ms": [row.lower_quartile, row.upper_quartile],
                    "engine": f"{runner.identity.engine} {runner.identity.engine_version}",
                    "clock": runner.identity.clock,
                    "max_difference": _max_difference(workload, runner),
                    "parameters": network.num_parameters(),
                    "macs": sum(spec.macs for _, spec in specs),
                }
            ),
            artifacts=[store(attempt, "network.onnx", workload.onnx)],
        )
    )


def _predicted_ms(job: Job, runner: Runner, network: SegmentationNetwork, attempt: AttemptClient) -> float | None:
    """The table's estimate, where a table was given; it must be of the engine and the device that measure.

    Raises:
        ValueError: the table is of another engine, version, device, driver, number of threads or precision.
        MissingLatencyError: the table lacks an operator of this network.
    """
    if job.inputs.latency_table is None:
        return None
    document = cast(LatencyTableDocument, attempt.latency_table(job.inputs.latency_table))
    table = LatencyTable.from_document(document)
    here = asdict(runner.identity)
    for name in ("engine", "engine_version", "device", "driver", "threads", "precision"):
        of_table = getattr(table.fingerprint, name)
        if of_table != here[name]:
            raise ValueError(f"inputs.latency_table: its {name} is {of_table}, but {here[name]} measures here")
    return estimate(network.architecture, table).milliseconds


def _measured(workload: Workload, runner: Runner, config: ExportConfig, attempt: AttemptClient) -> LatencyRow:
    """The network's latency by the protocol of tables; the network is its own canary.

    Raises:
        MeasurementError: the machine was too restless, or the engine's output is not torch's.
    """
    protocol = Protocol(passes=config.passes, samples=config.samples)
    rows = follow_measurement(
        measure({"network": lambda: workload}, workload, runner, protocol), "measure", 0.0, 1.0, attempt
    )
    row = rows["network"]
    if row.state is RowState.QUARANTINED:
        raise MeasurementError(row.reason)
    return row


def _max_difference(workload: Workload, runner: Runner) -> float:
    """The largest absolute difference between the engine's logits and torch's on a random image."""
    inputs = workload.random_inputs()
    return float(np.abs(runner.run(workload, inputs) - workload.reference(inputs)).max())
