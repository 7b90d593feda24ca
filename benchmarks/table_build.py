"""How long the complete latency table of this device takes, beside its floor: what is executed, once a sample.

    python -m benchmarks.table_build
    python -m benchmarks.table_build --every 12     # each twelfth row, for a quick look

An operator is executed between its neighbours. What is above the floor: warming up, exporting, compiling and checking
each operator, and reading the canary. The last line is one JSON object.
"""

import argparse
import json
import os
import time

import torch

from benchmarks.measuring import alone_on, result_of, setting_of
from fasterseg_core.config import Engine, Precision, ProfileConfig
from fasterseg_core.latency_table import RowState
from fasterseg_core.search_space import Resolution
from fasterseg_core.table_rows import neighbours_of
from services.profiler.engines import open_runner
from services.profiler.table_builder import build_table, measured_ms


def main() -> None:
    """Prints progress and a summary."""
    arguments = _arguments()
    torch.set_num_threads(os.cpu_count() or 1)  # as a worker: exports and references are made with them
    config = ProfileConfig(
        resolution=Resolution(height=arguments.height, width=arguments.width),
        engine=Engine(arguments.engine),
        precision=Precision(arguments.precision),
        threads=arguments.threads,
        part=1,
        parts=arguments.every,
        random_networks=0,
    )
    runner = open_runner(config.engine, config.threads, config.precision)
    with alone_on(runner.identity.address):
        started = time.monotonic()
        table = result_of(build_table(config, runner), "operators")
        seconds = time.monotonic() - started
    executed_ms = sum(measured_ms(spec, neighbours_of(spec), table.rows) or 0.0 for spec in table.rows)
    floor = executed_ms * config.passes * config.samples / 1e3
    summary = {
        "rows": len(table.rows),
        "quarantined": sum(row.state is RowState.QUARANTINED for row in table.rows.values()),
        "seconds": round(seconds, 1),
        "floor_seconds": round(floor, 1),
        "floor_ratio": round(seconds / floor, 3),
    }
    setting = {
        **setting_of(runner),
        "resolution": f"{arguments.height}x{arguments.width}",
        "passes": config.passes,
        "samples": config.samples,
        "every": arguments.every,
    }
    print(json.dumps(summary | {"setting": setting}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default=Engine.ONNXRUNTIME, choices=list(Engine))
    parser.add_argument("--precision", default=Precision.FP32, choices=list(Precision))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--every", type=int, default=1, help="rows, of which one is measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
