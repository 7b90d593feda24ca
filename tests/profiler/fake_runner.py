"""A runner whose times are written down beforehand."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fasterseg_core.config import Engine, Precision
from services.profiler.errors import MeasurementError
from services.profiler.runners import Array, RunnerIdentity, Workload


class Named(nn.Module):
    """An identity with a name, so that a fake can tell workloads apart."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return x


def a_workload(name: str) -> Workload:
    return Workload(Named(name), ((1, 1, 2, 2),))


def builders(*names: str) -> Mapping[str, Callable[[], Workload]]:
    return {name: (lambda name=name: a_workload(name)) for name in names}


class FakeRunner:
    """Answers like torch. `times` gives a named workload's milliseconds at each benchmark, the last one for ever."""

    identity = RunnerIdentity(
        engine=Engine.ONNXRUNTIME,
        engine_version="1",
        device="fake",
        driver="none",
        address="fake",
        threads=1,
        precision=Precision.FP32,
        clock="written down",
        clock_error_ms=0.02,
    )

    def __init__(self, times: Mapping[str, Sequence[float]] | None = None) -> None:
        self.times = {name: list(values) for name, values in (times or {}).items()}
        self.benchmarked: list[str] = []
        self.wrong: set[str] = set()
        self.failing: set[str] = set()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        output = workload.reference(inputs)
        return output + 1 if self._name(workload) in self.wrong else output

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        name = self._name(workload)
        self.benchmarked.append(name)
        if name in self.failing:
            raise MeasurementError(f"{name} failed")
        times = self.times.get(name, [1.0])
        return [times.pop(0) if len(times) > 1 else times[0]] * samples

    def sm_mhz(self) -> int | None:
        return None

    def built(self, workload: Workload) -> dict[str, bytes]:
        return {"network.plan": self._name(workload).encode()}

    def _name(self, workload: Workload) -> str:
        return workload.module.name if isinstance(workload.module, Named) else type(workload.module).__name__


class MacsRunner(FakeRunner):
    """A device on which a MAC takes a nanosecond, and an element of what enters or leaves ten: it is reordered."""

    def __init__(self, slowdown: float = 1.0) -> None:
        super().__init__()
        self._slowdown = slowdown

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        return [1e-6 * (_macs(workload) + 10 * _border(workload)) * self._slowdown] * samples


@cache
def _macs(workload: Workload) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        workload.module(*(torch.zeros(shape) for shape in workload.input_shapes))
    return counter.get_total_flops() // 2


@cache
def _border(workload: Workload) -> int:
    """Elements of all inputs and of the output."""
    with torch.no_grad():
        output = workload.module(*(torch.zeros(shape) for shape in workload.input_shapes))
    return output.numel() + sum(math.prod(shape) for shape in workload.input_shapes)
