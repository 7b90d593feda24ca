"""Which CPU engine should measure latency here: how steady each is, and how well operators' sums predict its networks.

    python -m benchmarks.cpu_engines --height 180 --width 240 --layers 6 --ratios 4,8 --networks 12

Builds a table and measures random networks with every engine, taking turns so that both see the same machine; the last
line is one JSON object. What it gave, with machine and date, is kept under benchmarks/results/.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median

import torch

from benchmarks.measuring import result_of
from fasterseg_core.config import DatasetName, Engine, ProfileConfig
from fasterseg_core.latency_table import LatencyRow, LatencyTable, RowState
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.engines import open_runner
from services.profiler.fidelity import FidelityReport, report
from services.profiler.measured_networks import measure_networks
from services.profiler.random_networks import random_architectures
from services.profiler.runners import Runner, cpu_name
from services.profiler.table_builder import build_table, protocol_of

ENGINES = (Engine.ONNXRUNTIME, Engine.OPENVINO)


def main() -> None:
    """Prints a line for each engine and round, and a summary."""
    arguments = _arguments()
    torch.set_num_threads(1)
    ratios = tuple(int(ratio) for ratio in arguments.ratios.split(","))
    space = SearchSpace(num_layers=arguments.layers, expansion_ratios=ratios, student_ratio=ratios[0])
    resolution = Resolution(height=arguments.height, width=arguments.width)
    runners = {engine: open_runner(engine, arguments.threads) for engine in ENGINES}
    rounds: dict[Engine, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    tables: dict[Engine, list[LatencyTable]] = {engine: [] for engine in ENGINES}
    print(f"{cpu_name()}, {arguments.threads} thread(s), {resolution.height} x {resolution.width}, {space}")
    for number in range(arguments.rounds):
        for engine, runner in runners.items():
            config = ProfileConfig(
                space=space,
                resolution=resolution,
                dataset=DatasetName.STREET_SCENES,
                engine=engine,
                threads=arguments.threads,
                random_networks=arguments.networks,
            )
            table, fidelity, seconds = _measure(config, runner, seed=number)
            tables[engine].append(table)
            rounds[engine].append(_summary(table, fidelity, seconds))
            print(engine, json.dumps(rounds[engine][-1]))
    summary = {
        engine: {
            name: round(median(one[name] for one in rounds[engine] if name in one), 4)
            for name in _names(rounds[engine])
        }
        | {"repeatability": round(_repeatability(tables[engine]), 4)}
        for engine in ENGINES
    }
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this program's own included
        "versions": {engine: runner.identity.engine_version for engine, runner in runners.items()},
        **vars(arguments),
    }
    print(json.dumps({"setting": setting, "engines": summary}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=180)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ratios", default="4,8", help="expansion ratios, the student's first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _measure(config: ProfileConfig, runner: Runner, seed: int) -> tuple[LatencyTable, FidelityReport | None, float]:
    """A table, how well it predicts networks (None: too much of it is quarantined), and the table's seconds."""
    started = time.monotonic()
    table = result_of(build_table(config, runner), "operators")
    seconds = time.monotonic() - started
    architectures = random_architectures(config.space, config.calibration_networks + config.random_networks, seed)
    measured = result_of(measure_networks(architectures, table, runner, protocol_of(config)), "networks")
    try:
        return table, report(measured, config.calibration_networks), seconds
    except ValueError:
        return table, None, seconds


def _summary(table: LatencyTable, fidelity: FidelityReport | None, seconds: float) -> dict[str, float]:
    """Errors are shares of the measured network; spread is the quartile distance as a share of a row's median."""
    rows = [row for row in table.rows.values() if row.state is RowState.MEASURED]
    summary = {
        "table_seconds": round(seconds, 1),
        "operators": len(table.rows),
        "quarantined": len(table.rows) - len(rows),
        "spread": round(median(_spread(row) for row in rows), 4),
        "compared": len(fidelity.held_out) if fidelity else 0,
    }
    if fidelity:
        summary |= {
            "network_ms": round(median(fidelity.measured_ms), 3),
            **{name: round(value, 4) for name, value in asdict(fidelity.calibrated).items()},
            "sums_mape": round(fidelity.sums.mape, 4),
            "macs_mape": round(fidelity.macs.mape, 4),
        }
    return summary


def _names(rounds: list[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for one in rounds for name in one))


def _spread(row: LatencyRow) -> float:
    return (row.upper_quartile - row.lower_quartile) / row.milliseconds


def _repeatability(tables: list[LatencyTable]) -> float:
    """The median over operators of (slowest - fastest) / fastest among the tables of all rounds."""
    spans = []
    for spec in tables[0].rows:
        times = [table.rows[spec].milliseconds for table in tables if table.rows[spec].state is RowState.MEASURED]
        if len(times) > 1:
            spans.append(max(times) / min(times) - 1)
    return median(spans)


if __name__ == "__main__":
    main()
