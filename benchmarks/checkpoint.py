"""What a checkpoint costs: a search's state kept and read again, beside torch.save and beside the floor.

    python -m benchmarks.checkpoint --preset paper

The floor writes, hashes and reads as many bytes that lie in memory already, by plain calls and without a format. All
three take turns; ratios are of CPU-seconds, which neighbours disturb least. The last line is one JSON object. What it
gave, with machine and date, is kept under benchmarks/results/.
"""

import argparse
import ctypes
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from fasterseg_core.checkpoint import CheckpointKind, load, save
from fasterseg_core.config import SearchConfig
from fasterseg_core.presets import PAPER, QUICK
from fasterseg_core.search_space import SearchSpace
from fasterseg_core.supernet import Supernet
from services.profiler.processor import cpu_name
from services.workers.checkpoints import WORK_PER_CHECKPOINT

NUM_CLASSES = 19
KIND = CheckpointKind.SEARCH
PRESETS = {"paper": PAPER, "quick": QUICK}
State = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one thing done once; extra_gb is the peak of resident memory above what was there before."""

    seconds: float
    cpu_seconds: float
    extra_gb: float


def main() -> None:
    """Prints a line for each way and round, and a summary."""
    arguments = _arguments()
    torch.set_num_threads(1)
    config = PRESETS[arguments.preset]["search"]
    assert isinstance(config, SearchConfig)
    state = _state(config.space)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "state"
        ways = {"ours": _ours(state, path), "torch": _torch(state, path), "floor": _floor(state, path)}
        costs: dict[str, dict[str, list[Cost]]] = {way: {} for way in ways}
        for number in range(arguments.rounds):
            for way, steps in ways.items():
                for name, step in steps.items():
                    costs[way].setdefault(name, []).append(_measured(step))
                    print(number, way, name, costs[way][name][-1])
        size = path.stat().st_size
    summary = {way: {name: _median(found) for name, found in steps.items()} for way, steps in costs.items()}
    kept = {
        unit: summary["ours"]["write"][unit] + summary["ours"]["sha256"][unit] for unit in ("seconds", "cpu_seconds")
    }
    whole = {way: sum(step["cpu_seconds"] for step in steps.values()) for way, steps in summary.items()}
    setting = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this program's own included
        "versions": {name: version(name) for name in ("torch", "safetensors")},
        **vars(arguments),
    }
    print(
        json.dumps(
            {
                "setting": setting,
                "gigabytes": round(size / 1e9, 3),
                **summary,
                "kept_seconds": round(kept["seconds"], 2),  # the work stands still for so long
                "kept_cpu_seconds": round(kept["cpu_seconds"], 2),
                "least_seconds_between": round(WORK_PER_CHECKPOINT * kept["seconds"]),
                "floor_ratio": round(whole["ours"] / whole["floor"], 2),
                "torch_ratio": round(whole["ours"] / whole["torch"], 2),
            }
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=sorted(PRESETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the files are written; by default the temporary folder")
    return parser.parse_args()


def _state(space: SearchSpace) -> State:
    """Weights and momenta, as they are after a step."""
    supernet = Supernet(space, NUM_CLASSES)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.01, momentum=0.9)
    for parameter in supernet.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    return {"supernet": supernet.state_dict(), "weight_optimizer": optimizer.state_dict()}


def _ours(state: State, path: Path) -> dict[str, Callable[[], object]]:
    return {
        "write": lambda: save(state, KIND, path),
        "sha256": lambda: _sha256(path),
        "verify": lambda: _sha256(path),
        "read": lambda: load(path, KIND),
    }


def _torch(state: State, path: Path) -> dict[str, Callable[[], object]]:
    return {
        "write": lambda: torch.save(state, path),
        "sha256": lambda: _sha256(path),
        "verify": lambda: _sha256(path),
        "read": lambda: torch.load(path, map_location="cpu", weights_only=True),
    }


def _floor(state: State, path: Path) -> dict[str, Callable[[], object]]:
    tensors = list(_tensors(state))
    pieces = [tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data for tensor in tensors]

    def write() -> None:
        beside = path.with_suffix(".beside")  # as ours: the old file stays until the new one is whole
        with beside.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
        beside.replace(path)

    def sha256() -> None:
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)

    def read() -> None:
        buffers = [bytearray(len(piece)) for piece in pieces]
        with path.open("rb", buffering=0) as file:
            for buffer in buffers:
                file.readinto(buffer)

    return {"write": write, "sha256": sha256, "verify": sha256, "read": read}


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.dim():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _measured(step: Callable[[], object]) -> Cost:
    with _peak() as extra_gb:
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        result = step()
        cost = time.perf_counter() - seconds, time.process_time() - cpu_seconds
    del result
    return Cost(seconds=round(cost[0], 2), cpu_seconds=round(cost[1], 2), extra_gb=round(extra_gb(), 2))


@contextmanager
def _peak() -> Iterator[Callable[[], float]]:
    """What was resident at most meanwhile beyond what was before, in gigabytes; Linux alone can tell."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed is no longer resident
    Path("/proc/self/clear_refs").write_text("5")
    before, peak = _resident("VmRSS"), 0.0
    yield lambda: peak
    peak = _resident("VmHWM") - before


def _resident(name: str) -> float:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e9


def _median(costs: list[Cost]) -> dict[str, float]:
    return {
        name: round(median(getattr(cost, name) for cost in costs), 2) for name in ("seconds", "cpu_seconds", "extra_gb")
    }


if __name__ == "__main__":
    main()
