"""How fast the exported network is on this CPU, beside networks from pip and beside its own roofline.

    python -m benchmarks.inference --peers benchmark-out/peers

The network of Table 7 with each of its outputs, and the peers that `benchmarks/peer_networks.py` wrote, take turns on
ONNX Runtime and OpenVINO, with one thread and two, at two sizes; at 360x480 peers get 384x480, since they need
multiples of 32. A time is the lower quartile of all samples. The floor of our network is the time of its convolutions,
each the longer of its MACs at the best rate that the engine reached in the same run and its bytes at the bandwidth of
a copy by one thread. The time for labels depends on how many patches are mixed, so two are given: those that the random
network gives (2 % at 512x1024), and those of a street scene (12 %). The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import alone_on
from fasterseg_core.architecture import TABLE_7
from fasterseg_core.blocks import with_random_norms
from fasterseg_core.config import CPU_ENGINES, NetworkOutput, Precision
from fasterseg_core.datasets.street_scenes import draw_scene
from fasterseg_core.deployment import DeployedNetwork, upsampled_labels
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.search_space import Resolution
from services.profiler.engines import open_runner
from services.profiler.processor import cpu_name
from services.profiler.runners import Array, Runner, Workload, verify

NUM_CLASSES = 19
SIZES = ("512x1024", "360x480")
CONVOLUTIONS = ((64, 64, 128), (96, 64, 128), (128, 64, 128), (192, 32, 64), (256, 32, 64))  # channels, height, width
BYTES = 4


@dataclass(frozen=True, eq=False)
class Peer(Workload):
    """A network that is there as ONNX alone."""

    path: Path

    @cached_property
    def onnx(self) -> bytes:
        return self.path.read_bytes()


class SceneLabels(nn.Module):
    """A network whose coarse logits are those of a scene, as far as its labels can tell: (1, 3, H, W) -> (1, H, W)."""

    def __init__(self, network: SegmentationNetwork, logits: Tensor) -> None:
        super().__init__()
        self.network = network
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network.coarse_logits(images) * 1e-6 + self.logits
        return upsampled_labels(logits, (images.shape[2], images.shape[3]))


def main() -> None:
    """Prints a line for each network and setting, and a summary."""
    arguments = _arguments()
    torch.set_num_threads(1)
    with alone_on("cpu"):
        figures = dict(_figures(arguments))
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this program's own included
        "python": platform.python_version(),
        "versions": {engine: open_runner(engine, 1, Precision.FP32).identity.engine_version for engine in CPU_ENGINES},
        "rounds": arguments.rounds,
        "samples": arguments.samples,
    }
    print(json.dumps({"figures": figures, "setting": setting}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="the folder that benchmarks/peer_networks.py wrote; none without")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=3)
    return parser.parse_args()


def _figures(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Printed as they come, by engine, threads and size."""
    for size in arguments.sizes.split(","):
        height, width = (int(length) for length in size.split("x"))
        networks = _networks(height, width, arguments.peers)
        for engine, threads in product(CPU_ENGINES, (1, 2)):
            runner = open_runner(engine, threads, Precision.FP32)
            name = f"{engine} {threads} thread{'s' * (threads > 1)} {size}"
            figures = _measured(networks, runner, arguments.rounds, arguments.samples)
            _print(name, figures)
            yield name, figures


def _networks(height: int, width: int, peers: Path | None) -> dict[str, Workload]:
    """By name: the network of Table 7 with each output, and the peers of this size."""
    torch.manual_seed(0)
    network = with_random_norms(SegmentationNetwork(TABLE_7, NUM_CLASSES))
    shapes = ((1, 3, height, width),)
    networks = {f"ours {output}": Workload(DeployedNetwork(network, output).eval(), shapes) for output in NetworkOutput}
    networks["ours labels of a scene"] = Workload(SceneLabels(network, _scene_logits(height, width)).eval(), shapes)
    for path in sorted(peers.glob(f"*_{height}x{width}.onnx")) if peers else ():
        graph = onnx.load(path, load_external_data=False).graph
        shape = tuple(dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim)
        networks[path.stem.removesuffix(f"_{height}x{width}")] = Peer(nn.Identity(), (shape,), path)
    return networks


def _scene_logits(height: int, width: int) -> Tensor:
    """Logits (1, NUM_CLASSES, H/8, W/8) as a network gives them that knows a street scene's labels, unsure at edges."""
    _, labels = draw_scene(Random(0), Resolution(height=height, width=width))
    known = torch.from_numpy(labels).long().clamp(max=NUM_CLASSES - 1)
    classes = F.one_hot(known, NUM_CLASSES).permute(2, 0, 1)[None].float()
    return 10 * F.interpolate(classes, size=(-(-height // 8), -(-width // 8)), mode="area")


def _measured(networks: dict[str, Workload], runner: Runner, rounds: int, samples: int) -> dict[str, dict[str, float]]:
    """By network: milliseconds; of ours the difference from torch, the floor, and how many times that it takes."""
    differences = {name: verify(runner, workload) for name, workload in networks.items() if name.startswith("ours")}
    convolutions = {f"convolution {shape}": _convolution(*shape) for shape in CONVOLUTIONS}
    times: dict[str, list[float]] = {name: [] for name in (*convolutions, *networks)}
    bandwidth = 0.0
    for _ in range(rounds):
        bandwidth = max(bandwidth, _copied_bytes_per_second())
        for name, workload in (convolutions | networks).items():
            times[name] += runner.benchmark(workload, samples)
    milliseconds = {name: float(np.percentile(values, 25)) for name, values in times.items()}
    rate = max(_macs(workload) / milliseconds[name] for name, workload in convolutions.items()) * 1e3
    figures = {name: {"ms": round(milliseconds[name], 2)} for name in networks}
    for name, difference in differences.items():
        needs = list(_convolutions(networks[name].onnx))
        floor = sum(max(macs / rate, size / bandwidth) for macs, size in needs) * 1e3
        figures[name] |= {
            "floor_ms": round(floor, 2),
            "floor_ratio": round(figures[name]["ms"] / floor, 3),
            "difference": float(f"{difference:.1e}"),
        }
    figures["machine"] = {"gmacs_per_second": round(rate / 1e9, 1), "gb_per_second": round(bandwidth / 1e9, 1)}
    return figures


def _convolution(channels: int, height: int, width: int) -> Workload:
    return Workload(
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval(), ((1, channels, height, width),)
    )


def _macs(workload: Workload) -> int:
    return sum(macs for macs, _ in _convolutions(workload.onnx))


def _convolutions(model: bytes) -> Iterator[tuple[int, int]]:
    """The multiply-accumulates of each convolution, and the bytes that it reads and writes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), data_prop=True).graph
    shapes: dict[str, Sequence[int]] = {value.name: value.dims for value in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    for node in graph.node:
        if node.op_type == "Conv":
            x, kernel, y = (int(np.prod(shapes[name])) for name in (*node.input[:2], node.output[0]))
            pixels = int(np.prod(shapes[node.output[0]][2:]))
            yield kernel * pixels, BYTES * (x + kernel + y)


def _copied_bytes_per_second() -> float:
    source: Array = np.ones(2**24, dtype=np.float32)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - started)
    return 2 * source.nbytes / min(seconds)


def _print(setting: str, figures: dict[str, dict[str, float]]) -> None:
    print(f"\n{setting}: {figures['machine']}")
    ours = figures["ours logits"]["ms"]
    for name, values in figures.items():
        if "ms" in values:
            print(
                f"{name:<28} {values['ms']:8.2f} ms {ours / values['ms']:5.2f} times our frames  {json.dumps(values)}"
            )
    print(flush=True, end="")


if __name__ == "__main__":
    main()
