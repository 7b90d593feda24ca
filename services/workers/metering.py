"""What an attempt takes: the time of its steps and evaluations, phase by phase, and its memory at the most."""

import resource
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from services.client.attempt import AttemptClient
from services.client.attempt_schemas import USAGE, AttemptSuccess, PhaseUsage, Usage
from services.client.errors import ProblemError
from services.client.schemas import JsonObject, Progress, Reason
from services.profiler.processor import cpu_name
from services.workers.stages import Stages


@dataclass
class _Phase:
    steps: int = 0
    step_seconds: float = 0.0
    evaluations: int = 0
    evaluation_seconds: float = 0.0


class Meter:
    """Times between what an attempt tells: what comes before its first step, checkpoints and its end are no steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._last = clock()
        self._phases: defaultdict[str, _Phase] = defaultdict(_Phase)
        self._told: Progress | None = None  # the last step; None before the first

    def step(self, progress: Progress) -> None:
        """Counts what was done since the last step; a phase without steps is waiting."""
        seconds = self._lap()
        if self._told is None and progress.steps:
            self._told = progress
            return
        phase = self._phases[progress.phase]
        phase.step_seconds += seconds
        if self._told is not None:
            phase.steps += _steps_between(self._told, progress)
            self._told = progress

    def evaluation(self, phase: str) -> None:
        """Counts what was done since the last step as an evaluation."""
        seconds = self._lap()
        if self._told is not None:
            self._phases[phase].evaluations += 1
            self._phases[phase].evaluation_seconds += seconds

    def pause(self) -> None:
        """Leaves out what was done since the last step."""
        self._lap()

    def usage(self, device: str) -> Usage:
        """Everything until now."""
        return Usage(
            device=device,
            seconds=self._clock() - self._started,
            phases={name: PhaseUsage(**asdict(phase)) for name, phase in self._phases.items()},
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            peak_gpu_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        )

    def _lap(self) -> float:
        last, self._last = self._last, self._clock()
        return self._last - last


class MeteredAttempt(AttemptClient):
    """An attempt whose last event says what it took, and whose stages are spans."""

    def __init__(
        self,
        url: str,
        submission_id: str,
        *,
        token: str,
        heartbeat_seconds: float,
        device: str,
        devices: int,
        first_event: int,
        traceparent: str | None,
        meter: Meter,
        stages: Stages,
    ) -> None:
        super().__init__(
            url,
            submission_id,
            token=token,
            heartbeat_seconds=heartbeat_seconds,
            devices=devices,
            first_event=first_event,
            traceparent=traceparent,
        )
        self._device, self._meter, self._stages = device, meter, stages

    def progress(self, progress: Progress) -> None:
        self._stages.step(progress)
        self._meter.step(progress)
        super().progress(progress)

    def event(self, kind: str, data: JsonObject) -> None:
        if kind == "epoch":
            self._stages.mark()
            if data["miou"] is not None:
                self._meter.evaluation(str(data["phase"]))
        super().event(kind, data)

    def checkpoint(self, path: Path, progress: Progress) -> None:
        super().checkpoint(path, progress)
        self._stages.mark()
        self._meter.pause()

    def succeed(self, success: AttemptSuccess) -> None:
        self._tell_usage()
        super().succeed(success)
        self._stages.end()

    def fail(self, reason: Reason) -> None:
        with suppress(ProblemError):  # of what was spooled before
            self._tell_usage()
        super().fail(reason)
        self._stages.end(reason.failure)

    def stopped(self) -> None:
        self._tell_usage()
        super().stopped()
        self._stages.end()

    def _tell_usage(self) -> None:
        self.event(USAGE, self._meter.usage(self._device).model_dump(mode="json"))


def device_name(device: torch.device, cpus: int) -> str:
    """What people call the device that a job runs on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {cpus} thread{'s' * (cpus > 1)}"


def _steps_between(before: Progress, now: Progress) -> int:
    """How many steps were made; a phase is entered at its first, and repetitions are none."""
    if before.phase != now.phase:
        return 1
    return now.step - before.step if before.epoch == now.epoch else now.step
