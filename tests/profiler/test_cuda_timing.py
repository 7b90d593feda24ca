from collections.abc import Callable
from types import SimpleNamespace

import pynvml
import pytest

from services.profiler.cuda_timing import Replay, read_gpu, steady_mhz, timer
from services.profiler.errors import EngineUnavailableError, MeasurementError


class FakeGpu:
    """A graph takes `launch_ms`, and `operator_ms` for each execution in it."""

    def __init__(self, launch_ms: float, operator_ms: float) -> None:
        self.launch_ms, self.operator_ms = launch_ms, operator_ms
        self.captured: list[int] = []

    def capture(self, executions: int) -> Replay:
        self.captured.append(executions)
        return lambda: self.launch_ms + executions * self.operator_ms


def test_the_launch_is_not_counted() -> None:
    gpu = FakeGpu(launch_ms=0.5, operator_ms=0.01)

    assert timer(gpu.capture).sample(3) == pytest.approx([0.01] * 3)


def test_a_sample_takes_a_millisecond() -> None:
    gpu = FakeGpu(launch_ms=0.01, operator_ms=0.01)

    timer(gpu.capture)

    assert gpu.captured[-1] == pytest.approx(101, abs=1)


def test_a_long_operator_is_executed_twice() -> None:
    gpu = FakeGpu(launch_ms=0.01, operator_ms=30)

    assert timer(gpu.capture).sample(1) == pytest.approx([30])
    assert gpu.captured[-1] == 2


def test_samples_of_a_later_pass_capture_nothing() -> None:
    gpu = FakeGpu(launch_ms=0.01, operator_ms=1)
    kept = timer(gpu.capture)
    captured = list(gpu.captured)

    kept.sample(3)

    assert gpu.captured == captured


def test_a_time_that_is_not_positive_is_refused() -> None:
    with pytest.raises(MeasurementError, match="did not take longer than one"):
        timer(FakeGpu(launch_ms=1, operator_ms=0).capture).sample(1)


@pytest.fixture
def a_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Answers of NVIDIA's management library for one GPU at a clock, for these reasons."""

    def answer(sm_mhz: int, reasons: int) -> None:
        answers = {
            "nvmlInit": None,
            "nvmlDeviceGetHandleByUUID": "by UUID",
            "nvmlDeviceGetHandleByPciBusId": "by address",
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetCurrentClocksEventReasons": reasons,
            "nvmlSystemGetDriverVersion": "580.65.06",
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId="00000000:01:00.0"),
            "nvmlDeviceGetClockInfo": sm_mhz,
        }
        for name, value in answers.items():
            monkeypatch.setattr(pynvml, name, lambda *_, value=value: value)

    return answer


@pytest.mark.parametrize("name", ["GPU-01234567-89ab-cdef-0123-456789abcdef", "0000:01:00.0"])
def test_a_gpu_that_runs_freely(a_driver: Callable[[int, int], None], name: str) -> None:
    a_driver(1965, pynvml.nvmlClocksEventReasonGpuIdle)

    state = read_gpu(name)

    assert (state.driver, state.address) == ("580.65.06, at most 1980 MHz and 700 W", "00000000:01:00.0")
    assert (state.sm_mhz, state.slowdowns) == (1965, ())
    assert steady_mhz(name) == 1965


def test_numbers_of_a_gpu_that_is_slowed_down_are_refused(a_driver: Callable[[int, int], None]) -> None:
    a_driver(900, 0x60)

    with pytest.raises(MeasurementError, match="slowed down to 900 MHz: heat, by software, heat, by hardware"):
        steady_mhz("GPU-0")


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)

    with pytest.raises(EngineUnavailableError, match="NVIDIA's driver cannot tell the state of the GPU GPU-0"):
        read_gpu("GPU-0")
