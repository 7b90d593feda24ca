"""Timing on a GPU, where launching takes as long as computing: the difference of two CUDA graphs of one operator."""

import math
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.profiler.runners import EngineUnavailableError, MeasurementError

WARM_UP_SECONDS = 0.05
SAMPLE_MS = 1.0
MAX_EXECUTIONS = 1000
TRIAL_EXECUTIONS = 16
SLOWDOWNS = {
    0x8: "hardware",
    0x20: "heat, by software",
    0x40: "heat, by hardware",
    0x80: "power brake",
}

# Gives a function that replays a graph of so many back-to-back executions once and returns its milliseconds by events.
Capture = Callable[[int], AbstractContextManager[Callable[[], float]]]


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU's driver and limits, PCI address, the clock of its multiprocessors in MHz, and why that is lowered."""

    driver: str  # with the highest clock and the power that the GPU is allowed: its times depend on all three
    address: str
    sm_mhz: int
    slowdowns: tuple[str, ...]


def sample(capture: Capture, samples: int) -> list[float]:
    """Milliseconds of one execution, (T(K) - T(1)) / (K - 1) with T(K) of at least a millisecond, once per sample.

    Raises:
        MeasurementError: T(K) is not above T(1).
    """
    with capture(1) as once:
        with capture(TRIAL_EXECUTIONS) as trial:
            _warm_up(trial)
            estimate_ms = max((trial() - once()) / (TRIAL_EXECUTIONS - 1), SAMPLE_MS / MAX_EXECUTIONS)
        executions = max(2, math.ceil(SAMPLE_MS / estimate_ms) + 1)
        with capture(executions) as many:
            _warm_up(many)
            milliseconds = [(many() - once()) / (executions - 1) for _ in range(samples)]
    if min(milliseconds) <= 0:
        raise MeasurementError(f"{executions} executions did not take longer than one")
    return milliseconds


def read_gpu(gpu: str) -> GpuState:
    """The state of a GPU, named by its PCI address or UUID, from nvidia-smi.

    Raises:
        EngineUnavailableError: nvidia-smi is not installed or does not know the GPU.
    """
    query = "--query-gpu=driver_version,clocks.max.sm,power.limit,pci.bus_id,clocks.sm,clocks_event_reasons.active"
    command = ["nvidia-smi", f"--id={gpu}", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise EngineUnavailableError(f"nvidia-smi, a part of NVIDIA's driver, cannot read the GPU: {error}") from error
    driver, max_clock, power, address, clock, reasons = (field.strip() for field in answer.split(","))
    active = int(reasons, 16)
    return GpuState(
        driver=f"{driver}, at most {max_clock} MHz and {power} W",
        address=address,
        sm_mhz=int(clock),
        slowdowns=tuple(name for bit, name in SLOWDOWNS.items() if active & bit),
    )


def refuse_slowdown(gpu: str) -> None:
    """Raises MeasurementError where the GPU slows itself down at this moment."""
    state = read_gpu(gpu)
    if state.slowdowns:
        raise MeasurementError(f"the GPU was slowed down to {state.sm_mhz} MHz: {', '.join(state.slowdowns)}")


def _warm_up(replay: Callable[[], float]) -> None:
    end = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < end:
        replay()
