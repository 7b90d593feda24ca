"""What a search step and a pretraining step cost at the paper's size, beside a plain implementation and the floor.

    python -m benchmarks.search_step
    python -m benchmarks.search_step --device cuda --ours

Batch 2, 160 x 320, 16 layers, five ratios, 19 classes. Ours, the plain implementation of the tests, which has the same
gradients, and what the published code computes in a step take turns in one process; peak memory is that of a process
which runs ours alone. The floor is the time of the convolutions that the passes need at the best rate that this
machine's convolutions reach. --ours leaves the others out. The last line is one JSON object: CPU-seconds on a CPU; on
CUDA milliseconds, of bf16 with graphs beside them.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from fasterseg_core.config import Arithmetic, SearchConfig
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.batches import Batch
from services.embedded.ray_head import TORCH_ENVIRONMENT
from services.profiler.processor import cpu_name
from tests.builders import a_latency_table
from tests.core import plain_cosearch

NUM_CLASSES = 19
LATENCY_WEIGHT = 0.01
OTHERS = {"plain_search": "search", "published_search": "search", "plain_pretrain": "pretrain"}  # and ours beside them


def main() -> None:
    """Prints each round, and a summary; in a process that runs as the service's workers do."""
    arguments = _arguments()
    if not os.environ.items() >= TORCH_ENVIRONMENT.items():
        raise SystemExit(
            subprocess.run(_command(*sys.argv[1:]), env=os.environ | TORCH_ENVIRONMENT, check=False).returncode
        )
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        print(_peak_memory_gb(device))
        return
    memory = ("--memory", "--device", arguments.device, "--threads", str(arguments.threads))
    peak_gb = float(_output_of_a_process(*memory))  # before ours fills this one
    models, batches = _models(device), [_batch(device, seed) for seed in range(2)]
    steps: dict[str, Callable[[], object]] = {
        "search": lambda: models.search_step(batches[0], batches[1], LATENCY_WEIGHT, "here"),
        "pretrain": lambda: models.pretrain_step(batches[0], "here"),
    }
    if not arguments.ours:
        steps["plain_search"] = lambda: plain_cosearch.search_step(models, batches[0], batches[1], LATENCY_WEIGHT)
        steps["published_search"] = lambda: plain_cosearch.published_search_step(models, *batches, LATENCY_WEIGHT)
        steps["plain_pretrain"] = lambda: plain_cosearch.pretrain_step(models, batches[0])
    if device.type == "cuda":
        fast = _models(device, arithmetic=Arithmetic.BF16, cuda_graphs=True)
        steps["bf16_graphs_search"] = lambda: fast.search_step(batches[0], batches[1], LATENCY_WEIGHT, "here")
        steps["bf16_graphs_pretrain"] = lambda: fast.pretrain_step(batches[0], "here")
        for step in (steps["bf16_graphs_search"], steps["bf16_graphs_pretrain"]):
            step()  # captured before anything is counted
    counted = {name: step for name, step in steps.items() if not name.startswith("bf16")}  # graphs hide their own
    macs = {name: _convolution_macs(step) for name, step in counted.items()}  # this warms up, too
    costs: dict[str, list[float]] = {name: [] for name in steps}
    rates: list[float] = []
    for _ in range(arguments.rounds):
        rates.append(_best_convolution_rate(device))
        for name, step in steps.items():
            costs[name].append(_cost(step, device))
        print(
            {name: round(values[-1], 2) for name, values in costs.items()}, f"{rates[-1] / 1e9:.0f} GMAC/s", flush=True
        )
    unit, scale = ("cpu_seconds", 1.0) if device.type == "cpu" else ("milliseconds", 1e3)
    cost = {name: median(values) for name, values in costs.items()}
    floor = {name: macs[name] / max(rates) for name in ("search", "pretrain")}
    summary = {
        unit: cost["search"] * scale,
        f"pretrain_{unit}": cost["pretrain"] * scale,
        "peak_rss_gb" if device.type == "cpu" else "peak_memory_gb": peak_gb,
        **{f"{name}_ratio": cost[name] / cost[ours] for name, ours in OTHERS.items() if name in cost},
        "floor_ratio": cost["search"] / floor["search"],
        "pretrain_floor_ratio": cost["pretrain"] / floor["pretrain"],
        f"floor_{unit}": floor["search"] * scale,
        **{f"{name}_{unit}": cost[name] * scale for name in cost if name.startswith("bf16")},
        **{f"{name}_gmacs": macs[name] / 1e9 for name in macs},
        "best_gmacs_per_second": max(rates) / 1e9,
    }
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this program's own included
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "passes": {"search": 5, "pretrain": 4},
    }
    print(json.dumps({name: round(value, 3) for name, value in summary.items()} | {"setting": setting}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU; waiting ones cost CPU-seconds, too")
    parser.add_argument("--ours", action="store_true", help="without the plain and the published steps")
    parser.add_argument("--memory", action="store_true", help="only print the peak memory of ours, in GB")
    return parser.parse_args()


def _models(device: torch.device, **changes: object) -> CoSearch:
    config = replace(SearchConfig(), **changes)  # type: ignore[arg-type]
    return CoSearch(config, a_latency_table(config.space, config.resolution, NUM_CLASSES), device)


def _batch(device: torch.device, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    crop = SearchConfig().crop
    images = torch.randn(2, 3, crop.height, crop.width, generator=generator)
    labels = torch.randint(NUM_CLASSES, (2, crop.height, crop.width), generator=generator)
    return images.to(device), labels.to(device)


def _cost(step: Callable[[], object], device: torch.device) -> float:
    """CPU-seconds of all threads, system time included; on CUDA seconds until the device is done."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _finish(device)
    started = clock()
    step()
    _finish(device)
    return clock() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _convolution_macs(step: Callable[[], object]) -> float:
    """Multiply-accumulates of all convolutions of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_flop_counts()["Global"]
    return sum(count for operator, count in flops.items() if "convolution" in str(operator)) / 2


def _best_convolution_rate(device: torch.device) -> float:
    """MACs per second of cost: the best of a few shapes that suit convolution libraries, forward and backward."""
    return max(_convolution_rate(*shape, device) for shape in ((2, 96, 40, 80), (2, 192, 20, 40), (2, 256, 32, 64)))


def _convolution_rate(batch: int, channels: int, height: int, width: int, device: torch.device) -> float:
    x = torch.randn(batch, channels, height, width, device=device, requires_grad=True)
    weight = torch.randn(channels, channels, 3, 3, device=device, requires_grad=True)
    macs = 3 * batch * height * width * channels**2 * 9  # the output, and the gradient of either argument
    costs = [_cost(lambda: F.conv2d(x, weight, padding=1).sum().backward(), device) for _ in range(6)]
    return macs / min(costs)


def _peak_memory_gb(device: torch.device) -> float:
    """Of a process that takes pretraining and search steps and nothing else."""
    models, batches = _models(device), [_batch(device, seed) for seed in range(2)]
    for _ in range(2):
        models.pretrain_step(batches[0], "here")
    for _ in range(3):
        models.search_step(batches[0], batches[1], LATENCY_WEIGHT, "here")
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _output_of_a_process(*arguments: str) -> str:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, check=True).stdout


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.search_step", *arguments]


if __name__ == "__main__":
    main()
