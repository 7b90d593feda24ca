"""Figure 3 on this device: random networks of the paper's space, predicted from a latency table and measured whole.

    python -m benchmarks.latency_fidelity
    python -m benchmarks.latency_fidelity --engine torch_cuda --precision fp16

Builds the table, measures 8 networks that calibrate it and 100 others, and compares three predictors on those: the sum
of a network's operators, the calibrated sum, and multiply-accumulates alone, fitted on the same 8 networks. The last
line is one JSON object; errors are fractions. The picture, the table and every network go to --output.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.measuring import alone_on, result_of, setting_of
from fasterseg_core.config import CPU_ENGINES, Engine, Precision, ProfileConfig
from fasterseg_core.figures import latency_fidelity
from fasterseg_core.latency_calibration import PredictionError
from fasterseg_core.latency_table import LatencyTable, RowState
from fasterseg_core.search_space import Resolution
from services.profiler.engines import open_runner
from services.profiler.fidelity import FidelityReport, report
from services.profiler.measured_networks import measure_networks
from services.profiler.protocol import protocol_of
from services.profiler.random_networks import random_architectures
from services.profiler.table_builder import build_table


def main() -> None:
    """Prints progress, a table of the predictors and a summary."""
    arguments = _arguments()
    config = ProfileConfig(
        resolution=Resolution(height=arguments.height, width=arguments.width),
        engine=Engine(arguments.engine),
        precision=Precision(arguments.precision),
        threads=arguments.threads,
        passes=arguments.passes,
        samples=arguments.samples,
        alone=arguments.alone,
        random_networks=arguments.networks,
    )
    torch.set_num_threads(1 if config.engine in CPU_ENGINES else os.cpu_count() or 1)  # for references, beside a GPU
    runner = open_runner(config.engine, config.threads, config.precision)
    architectures = random_architectures(config.space, config.calibration_networks + config.random_networks)
    with alone_on(runner.identity.address):
        started = time.monotonic()
        table = result_of(build_table(config, runner), "operators")
        table_seconds = time.monotonic() - started
        measured = result_of(measure_networks(architectures, table, runner, protocol_of(config)), "networks")
    fidelity = report(measured, config.calibration_networks)
    _write(arguments.output, table, fidelity)
    for name, error in _errors(fidelity).items():
        print(f"{name:>10}  {json.dumps({key: round(value, 5) for key, value in asdict(error).items()})}")
    setting = {
        **setting_of(runner),
        "resolution": f"{arguments.height}x{arguments.width}",
        "passes": arguments.passes,
        "samples": arguments.samples,
        "protocol": table.fingerprint.protocol,
    }
    print(json.dumps(_summary(table, fidelity, table_seconds) | {"setting": setting}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default=Engine.ONNXRUNTIME, choices=list(Engine))
    parser.add_argument("--precision", default=Precision.FP32, choices=list(Precision))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="operators by themselves, not between neighbours")
    parser.add_argument("--networks", type=int, default=100, help="held out; 8 more calibrate")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmark-out/latency_fidelity"))
    return parser.parse_args()


def _errors(fidelity: FidelityReport) -> dict[str, PredictionError]:
    return {"sums": fidelity.sums, "calibrated": fidelity.calibrated, "macs": fidelity.macs}


def _write(folder: Path, table: LatencyTable, fidelity: FidelityReport) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latency_fidelity.png").write_bytes(latency_fidelity(fidelity.calibrated_ms, fidelity.measured_ms))
    (folder / "table.json").write_text(json.dumps(table.to_document()))
    (folder / "fidelity.json").write_text(json.dumps(fidelity.to_document()))


def _summary(table: LatencyTable, fidelity: FidelityReport, table_seconds: float) -> dict[str, object]:
    calibration = fidelity.calibration
    rounded = {
        name: {key: round(value, 5) for key, value in asdict(error).items()}
        for name, error in _errors(fidelity).items()
    }
    return {
        **rounded["calibrated"],
        "sums": rounded["sums"],
        "macs": rounded["macs"],
        "slope": round(calibration.slope, 4),
        "operator_ms": round(calibration.operator_ms, 4),
        "fixed_ms": round(calibration.fixed_ms, 4),
        "network_ms": [round(min(fidelity.measured_ms), 1), round(max(fidelity.measured_ms), 1)],
        "left_out": len(fidelity.left_out),
        "rows": len(table.rows),
        "quarantined": sum(row.state is RowState.QUARANTINED for row in table.rows.values()),
        "table_seconds": round(table_seconds, 1),
    }


if __name__ == "__main__":
    main()
