"""Long work followed step by step: progress is told, epochs are recorded, the state is kept, and it can be stopped."""

import io
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TypeVar

import torch

from fasterseg_core.reports import EpochReport, Report, StepReport
from services.client.attempt import AttemptClient
from services.client.schemas import CheckpointRef, Progress
from services.profiler.protocol import MeasurementProgress
from services.workers.job import Stopped
from services.workers.outputs import json_object

T = TypeVar("T")
State = Mapping[str, object]


class Pace:
    """How long the rest takes, from the share of the work that this attempt has done so far."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: float | None = None

    def seconds_left(self, fraction: float) -> float | None:
        """The estimate at a fraction of the whole job; none before the first step."""
        if self._first is None:
            self._first = fraction
            return None
        done = fraction - self._first
        return (time.monotonic() - self._started) / done * (1 - fraction) if done > 0 else None


def follow(reports: Iterable[Report], state: Callable[[], State], attempt: AttemptClient) -> None:
    """Runs a search or a retraining to its end; every epoch leaves an event and a checkpoint.

    Raises:
        Stopped: cancellation was requested; noticed at every step.
    """
    pace = Pace()
    last: Progress | None = None
    for report in reports:
        if attempt.should_stop:
            raise Stopped
        match report:
            case StepReport():
                last = _progress(report, pace, last)
                attempt.progress(last)
            case EpochReport():
                attempt.event("epoch", json_object(report))
                assert last is not None, "an epoch has steps"
                last = last.model_copy(update={"miou": report.miou, "latency_ms": report.latency_ms})
                attempt.checkpoint(_packed(state()), last)


def restored(attempt: AttemptClient, checkpoint: CheckpointRef) -> dict[str, object]:
    """The state of a checkpoint; nothing in it is ever executed."""
    blob = attempt.download(checkpoint.sha256)
    state: dict[str, object] = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    return state


def follow_measurement(
    work: Generator[MeasurementProgress, None, T], phase: str, begin: float, end: float, attempt: AttemptClient
) -> T:
    """Runs measurements to their result, telling how far they are between two fractions of the job.

    Raises:
        Stopped: cancellation was requested.
    """
    while not attempt.should_stop:
        try:
            report = next(work)
        except StopIteration as finished:
            result: T = finished.value
            return result
        attempt.progress(
            Progress(
                phase=phase,
                epoch=0,
                epochs=0,
                step=report.done,
                steps=report.total,
                fraction=begin + (end - begin) * report.done / report.total,
                seconds_left=report.seconds_left,
            )
        )
    raise Stopped


def counted(
    items: Iterable[T], total: int, phase: str, begin: float, end: float, attempt: AttemptClient
) -> Iterator[T]:
    """Yields the items, telling how many are done between two fractions of the job; Stopped as `follow`."""
    for number, item in enumerate(items, start=1):
        if attempt.should_stop:
            raise Stopped
        yield item
        fraction = begin + (end - begin) * number / total
        attempt.progress(Progress(phase=phase, epoch=0, epochs=0, step=number, steps=total, fraction=fraction))


def _progress(report: StepReport, pace: Pace, last: Progress | None) -> Progress:
    return Progress(
        phase=report.phase,
        epoch=report.epoch,
        epochs=report.epochs,
        step=report.step,
        steps=report.steps,
        fraction=report.fraction,
        seconds_left=pace.seconds_left(report.fraction),
        loss=report.loss,
        latency_ms=report.latency_ms if report.latency_ms is not None else (last and last.latency_ms),
        miou=last and last.miou,
    )


def _packed(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
