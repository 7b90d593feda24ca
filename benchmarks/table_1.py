"""Table 1 of the paper on this device: latency, MACs, parameters and receptive field of four kinds of convolution.

    python -m benchmarks.table_1
    python -m benchmarks.table_1 --engine tensorrt --precision fp16

One 3x3 convolution of 256 channels on an input of 1x256x32x64, with batch norm and ReLU: standard, of two groups, of
dilation 2, zoomed. Measured by the protocol of latency tables, interleaved. The last line is one JSON object.
"""

import argparse
import json
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.measuring import alone_on, result_of, setting_of
from fasterseg_core.config import Engine, Precision
from fasterseg_core.operators import DiscreteOperator
from fasterseg_core.search_space import Operator
from services.profiler.engines import open_runner
from services.profiler.protocol import Protocol, measure
from services.profiler.runners import Workload

CHANNELS, HEIGHT, WIDTH = 256, 32, 64
PAPER_MS = {"conv": 0.15, "conv group2": 0.13, "conv dilation2": 0.25, "zoomed conv": 0.09}  # GTX 1080 Ti, TensorRT


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the table: its module, and what follows from its definition."""

    module: nn.Module
    macs: int
    receptive_field: int  # relative to the standard convolution's


def main() -> None:
    """Prints the table, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default=Engine.ONNXRUNTIME, choices=list(Engine))
    parser.add_argument("--precision", default=Precision.FP32, choices=list(Precision))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runner = open_runner(Engine(arguments.engine), arguments.threads, Precision(arguments.precision))
    kinds = _kinds()
    workloads = {name: Workload(kind.module.eval(), ((1, CHANNELS, HEIGHT, WIDTH),)) for name, kind in kinds.items()}
    builders = {name: (lambda workload=workload: workload) for name, workload in workloads.items()}
    protocol = Protocol(passes=arguments.passes, samples=10)
    with alone_on(runner.identity.address):
        rows = result_of(measure(builders, workloads["conv"], runner, protocol), "layers")
    standard_ms = rows["conv"].milliseconds
    print(f"{'layer':<15} {'ms':>8} {'':>6} {'MACs (G)':>9} {'params (M)':>11} {'RF':>3}   paper ms")
    for name, kind in kinds.items():
        change = rows[name].milliseconds / standard_ms - 1
        paper = f"{PAPER_MS[name]:.2f} {PAPER_MS[name] / PAPER_MS['conv'] - 1:+.0%}"
        print(
            f"{name:<15} {rows[name].milliseconds:8.3f} {change:+6.0%} {kind.macs / 1e9:9.2f} "
            f"{_parameters(kind.module) / 1e6:11.2f} {kind.receptive_field:3}   {paper}"
        )
    milliseconds = {name: round(row.milliseconds, 4) for name, row in rows.items()}
    states = {name: row.state for name, row in rows.items()}
    print(json.dumps({"milliseconds": milliseconds, "states": states, "setting": setting_of(runner)}))


def _kinds() -> dict[str, Kind]:
    macs = 9 * CHANNELS**2 * HEIGHT * WIDTH
    zoomed = DiscreteOperator(Operator.ZOOMED_CONV, CHANNELS, CHANNELS, 1)
    return {
        "conv": Kind(module=_convolution(), macs=macs, receptive_field=1),
        "conv group2": Kind(module=_convolution(groups=2), macs=macs // 2, receptive_field=1),
        "conv dilation2": Kind(module=_convolution(dilation=2), macs=macs, receptive_field=2),
        "zoomed conv": Kind(module=zoomed, macs=macs // 4, receptive_field=2),
    }


def _convolution(groups: int = 1, dilation: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


if __name__ == "__main__":
    main()
