"""What every inference engine offers a latency table: run a workload, and time it (appendix E)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fasterseg_core.blocks import build_operator, with_random_norms
from fasterseg_core.config import Engine, Precision
from fasterseg_core.onnx_export import export_onnx
from fasterseg_core.operator_specs import OperatorSpec, input_shapes
from services.profiler.errors import MeasurementError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32 | np.uint8]]  # the latter of labels

# The largest difference from torch's fp32 output, as a share of that output's largest magnitude; of labels, the share
# of pixels that differ.
TOLERANCE = {Precision.FP32: 1e-3, Precision.FP16: 3e-2}


@dataclass(frozen=True, kw_only=True)
class RunnerIdentity:
    """What a runner's numbers depend on: its share of a latency table's fingerprint."""

    engine: Engine
    engine_version: str
    device: str
    driver: str
    threads: int
    precision: Precision
    address: str  # of the device, "cpu" or a GPU's: where no two processes may measure at a time
    clock: str  # what a sample's milliseconds are, for example "thread CPU time"
    clock_error_ms: float  # a difference of times below this may be the clock's


@dataclass(frozen=True, eq=False)
class Workload:
    """A module and the shapes that it reads, batch included. Engines keep what they compile while it lives."""

    module: nn.Module
    input_shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def onnx(self) -> bytes:
        """The ONNX that every engine is given, made once."""
        return export_onnx(self.module, self.input_shapes)

    def random_inputs(self, seed: int = 0) -> list[Array]:
        """Inputs from a normal distribution. Never zeros: engines and processors are faster on them."""
        sizes = [math.prod(shape) for shape in self.input_shapes]
        noise = _noise(seed, sum(sizes))
        ends = accumulate(sizes)
        return [
            noise[end - size : end].reshape(shape)
            for end, size, shape in zip(ends, sizes, self.input_shapes, strict=True)
        ]

    def reference(self, inputs: Sequence[Array]) -> Array:
        """What torch computes for these inputs, in fp32 on the CPU."""
        with torch.no_grad():
            output: Tensor = self.module(*(torch.from_numpy(x) for x in inputs))
        return np.asarray(output.numpy())


class Runner(Protocol):
    """An inference engine on one device; `run` and `benchmark` are all that a latency table needs of it.

    Each method compiles the workload on its first use and raises MeasurementError where the engine refuses it.
    """

    @property
    def identity(self) -> RunnerIdentity:
        """The engine, the device and how time is taken."""

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution, once per sample, on random inputs and after warming up."""

    def sm_mhz(self) -> int | None:
        """The clock of the GPU's multiprocessors at this moment; None of a CPU.

        Raises:
            MeasurementError: the GPU slows itself down.
        """

    def built(self, workload: Workload) -> dict[str, bytes]:
        """Files of what the engine built for its device, by name; none where it starts from the ONNX each time."""


def random_workload(build: Callable[[], nn.Module], shapes: tuple[tuple[int, ...], ...]) -> Workload:
    """What is built, with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Workload(with_random_norms(build()), shapes)


def operator_workload(spec: OperatorSpec) -> Workload:
    """One operator by itself."""
    return random_workload(partial(build_operator, spec), input_shapes(spec))


def verify(runner: Runner, workload: Workload) -> float:
    """The largest difference between a runner's output and torch's, as a share of torch's largest magnitude.

    Of labels, the share of pixels that differ.

    Raises:
        MeasurementError: it is above the precision's tolerance, so the runner's time would be that of something else.
    """
    inputs = workload.random_inputs(seed=1)
    expected, actual = workload.reference(inputs), runner.run(workload, inputs)
    if actual.shape != expected.shape:
        raise MeasurementError(f"the engine's output has shape {actual.shape}, torch's {expected.shape}")
    if expected.dtype == np.uint8:
        difference = float(np.mean(actual != expected))
    else:
        difference = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE[runner.identity.precision]:  # also where it is not a number
        whole = "pixels" if expected.dtype == np.uint8 else "magnitude"
        raise MeasurementError(f"the engine's output differs from torch's by {difference:.1e} of its {whole}")
    return difference


_drawn: dict[int, Array] = {}  # by seed: the longest so far


def _noise(seed: int, count: int) -> Array:
    """Numbers from a normal distribution, drawn once for the thousands of inputs of a table; nobody writes to them."""
    if seed not in _drawn or _drawn[seed].size < count:
        _drawn[seed] = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    return _drawn[seed]
