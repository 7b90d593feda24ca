"""Long work followed step by step: progress is told, epochs are recorded, the state is kept, and it can be stopped."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.reports import EpochReport, Report, StepReport
from services.client.attempt import AttemptClient
from services.client.schemas import Progress
from services.profiler.protocol import MeasurementProgress
from services.workers.checkpoints import Rhythm, State, keep
from services.workers.job import Stopped
from services.workers.metrics import JobMetrics
from services.workers.outputs import json_object

T = TypeVar("T")


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


def follow(
    reports: Iterable[Report],
    state: Callable[[], State],
    kind: CheckpointKind,
    last: Progress | None,
    attempt: AttemptClient,
    metrics: JobMetrics,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs a search or a retraining to its end, from where it was last; epochs and their warnings leave events.

    Checkpoints are made as `Rhythm` says.

    Raises:
        Stopped: the job was cancelled or paused; noticed at every step, whose state is kept.
    """
    pace, rhythm = Pace(), Rhythm(clock)
    since = clock()
    for report in reports:
        match report:
            case StepReport():
                last = _progress(report, pace, last)
                attempt.progress(last)
                metrics.step(report, clock() - since, attempt.waiting)
            case EpochReport():
                if report.warning is not None:
                    attempt.event("warning", {"phase": report.phase, "epoch": report.epoch, "message": report.warning})
                attempt.event("epoch", json_object(report))
                metrics.epoch(report)
                assert last is not None, "an epoch has steps, taken now or before the checkpoint"
                last = last.model_copy(update={"miou": report.miou, "latency_ms": report.latency_ms})
        stop = attempt.should_stop
        if stop or rhythm.is_due(epoch_ended=isinstance(report, EpochReport)):
            with rhythm.keeping():
                size = keep(state(), kind, last, attempt)
            metrics.checkpoint(rhythm.seconds, size)
        if stop:
            raise Stopped
        since = clock()


def follow_measurement(
    work: Generator[MeasurementProgress, None, T], phase: str, begin: float, end: float, attempt: AttemptClient
) -> T:
    """Runs measurements to their result, telling how far they are between two fractions of the job.

    Raises:
        Stopped: the job was cancelled or paused.
    """
    while not attempt.should_stop:
        try:
            report = next(work)
        except StopIteration as finished:
            result: T = finished.value
            return result
        attempt.progress(measurement_progress(report, phase, begin, end))
    raise Stopped


def measurement_progress(report: MeasurementProgress, phase: str, begin: float, end: float) -> Progress:
    """Where a job is that measures between two fractions of it."""
    return Progress(
        phase=phase,
        epoch=0,
        epochs=0,
        step=report.done,
        steps=report.total,
        fraction=begin + (end - begin) * report.done / report.total,
        seconds_left=report.seconds_left,
    )


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
