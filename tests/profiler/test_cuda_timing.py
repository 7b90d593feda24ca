from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.profiler import cuda_timing
from services.profiler.cuda_timing import read_gpu, sample
from services.profiler.runners import EngineUnavailableError, MeasurementError


class FakeGpu:
    """A graph takes `launch_ms`, and `operator_ms` for each execution in it."""

    def __init__(self, launch_ms: float, operator_ms: float) -> None:
        self.launch_ms, self.operator_ms = launch_ms, operator_ms
        self.captured: list[int] = []

    @contextmanager
    def capture(self, executions: int) -> Iterator[Callable[[], float]]:
        self.captured.append(executions)
        yield lambda: self.launch_ms + executions * self.operator_ms


def test_the_launch_is_not_counted() -> None:
    gpu = FakeGpu(launch_ms=0.5, operator_ms=0.01)

    assert sample(gpu.capture, 3) == pytest.approx([0.01] * 3)


def test_a_sample_takes_a_millisecond() -> None:
    gpu = FakeGpu(launch_ms=0.01, operator_ms=0.01)

    sample(gpu.capture, 1)

    assert gpu.captured[-1] == pytest.approx(101, abs=1)


def test_a_long_operator_is_executed_twice() -> None:
    gpu = FakeGpu(launch_ms=0.01, operator_ms=30)

    assert sample(gpu.capture, 1) == pytest.approx([30])
    assert gpu.captured[-1] == 2


def test_a_time_that_is_not_positive_is_refused() -> None:
    with pytest.raises(MeasurementError, match="did not take longer than one"):
        sample(FakeGpu(launch_ms=1, operator_ms=0).capture, 1)


def an_nvidia_smi(monkeypatch: pytest.MonkeyPatch, folder, answer: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_gpu_that_runs_freely(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    an_nvidia_smi(monkeypatch, tmp_path, "580.65.06, 1980, 700.00, 00000000:01:00.0, 1980, 0x0000000000000001")  # idle

    state = read_gpu("GPU-0")

    assert (state.driver, state.address) == ("580.65.06, at most 1980 MHz and 700.00 W", "00000000:01:00.0")
    assert (state.sm_mhz, state.slowdowns) == (1980, ())
    cuda_timing.refuse_slowdown("GPU-0")


def test_numbers_of_a_gpu_that_is_slowed_down_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    an_nvidia_smi(monkeypatch, tmp_path, "580.65.06, 1980, 700.00, 00000000:01:00.0, 900, 0x0000000000000060")

    with pytest.raises(MeasurementError, match="slowed down to 900 MHz: heat, by software, heat, by hardware"):
        cuda_timing.refuse_slowdown("GPU-0")


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineUnavailableError, match="nvidia-smi"):
        read_gpu("GPU-0")
