"""Timing on a GPU, where launching takes as long as computing: the difference of two CUDA graphs of one operator."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pynvml

from services.profiler.errors import EngineUnavailableError, MeasurementError

WARM_UP_SECONDS = 0.01
SAMPLE_MS = 1.0
MAX_EXECUTIONS = 1000
TRIAL_EXECUTIONS = 16
CLOCK_ERROR_MS = 0.001  # of a difference of two operators' times
SLOWDOWNS = {
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "heat, by software",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "heat, by hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}

Replay = Callable[[], float]  # replays a CUDA graph once and returns its milliseconds by events
Capture = Callable[[int], Replay]  # of so many back-to-back executions; the graph lives as long as its replay


@dataclass(frozen=True)
class Timer:
    """A program's CUDA graphs, of one execution and of so many that they take a millisecond."""

    once: Replay
    many: Replay
    executions: int

    def sample(self, samples: int) -> list[float]:
        """Milliseconds of one execution, (T(K) - T(1)) / (K - 1), once per sample.

        Raises:
            MeasurementError: T(K) is not above T(1).
        """
        _warm_up(self.many)
        milliseconds = [(self.many() - self.once()) / (self.executions - 1) for _ in range(samples)]
        if min(milliseconds) <= 0:
            raise MeasurementError(f"{self.executions} executions did not take longer than one")
        return milliseconds


def timer(capture: Capture) -> Timer:
    """A timer that captures as many executions as one of them asks for."""
    once, trial = capture(1), capture(TRIAL_EXECUTIONS)
    _warm_up(trial)
    estimate_ms = max((trial() - once()) / (TRIAL_EXECUTIONS - 1), SAMPLE_MS / MAX_EXECUTIONS)
    executions = max(2, math.ceil(SAMPLE_MS / estimate_ms) + 1)
    return Timer(once, capture(executions), executions)


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU's driver and limits, PCI address, the clock of its multiprocessors in MHz, and why that is lowered."""

    driver: str  # with the highest clock and the power that the GPU is allowed: its times depend on all three
    address: str
    sm_mhz: int
    slowdowns: tuple[str, ...]


def read_gpu(name: str) -> GpuState:
    """The state of a GPU, named by its UUID or PCI address, from NVIDIA's management library.

    Raises:
        EngineUnavailableError: the driver, of which that library is a part, is missing or does not know the GPU.
    """
    try:
        pynvml.nvmlInit()  # counted: only the first one takes long
        find = pynvml.nvmlDeviceGetHandleByUUID if name.startswith("GPU-") else pynvml.nvmlDeviceGetHandleByPciBusId
        gpu = find(name)
        highest_mhz = pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_SM)
        watts = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
        active = pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
        return GpuState(
            driver=f"{pynvml.nvmlSystemGetDriverVersion()}, at most {highest_mhz} MHz and {watts:.0f} W",
            address=pynvml.nvmlDeviceGetPciInfo(gpu).busId,
            sm_mhz=pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
            slowdowns=tuple(name for reason, name in SLOWDOWNS.items() if active & reason),
        )
    except pynvml.NVMLError as error:
        raise EngineUnavailableError(f"NVIDIA's driver cannot tell the state of the GPU {name}: {error}") from error


def steady_mhz(name: str) -> int:
    """The clock of a GPU's multiprocessors at this moment.

    Raises:
        MeasurementError: the GPU slows itself down.
    """
    state = read_gpu(name)
    if state.slowdowns:
        raise MeasurementError(f"the GPU was slowed down to {state.sm_mhz} MHz: {', '.join(state.slowdowns)}")
    return state.sm_mhz


def _warm_up(replay: Replay) -> None:
    end = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < end:
        replay()
