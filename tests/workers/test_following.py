from collections.abc import Generator, Iterator

import pytest

from fasterseg_core.reports import EpochReport, Report, StepReport
from services.client.schemas import CheckpointRef, JsonObject, Progress
from services.profiler.protocol import MeasurementProgress
from services.workers.following import counted, follow, follow_measurement, restored
from services.workers.job import Stopped


class FakeAttempt:
    """Keeps what a worker tells, and asks it to stop after so many progress reports."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[Progress] = []
        self.events: list[tuple[str, JsonObject]] = []
        self.checkpoints: list[tuple[bytes, Progress]] = []
        self._stop_after = stop_after

    @property
    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def event(self, kind: str, data: JsonObject) -> None:
        self.events.append((kind, data))

    def checkpoint(self, data: bytes, progress: Progress) -> None:
        self.checkpoints.append((data, progress))

    def download(self, sha256: str) -> bytes:
        return self.checkpoints[-1][0]


def a_step(step: int, latency_ms: float | None = None) -> StepReport:
    return StepReport(
        phase="search", epoch=1, epochs=1, step=step, steps=2, fraction=step / 2, loss=1.0, latency_ms=latency_ms
    )


def reports() -> Iterator[Report]:
    yield a_step(1, latency_ms=5.0)
    yield a_step(2)
    yield EpochReport(phase="search", epoch=1, loss=1.0, latency_ms=4.0, miou=0.25)


def test_steps_are_told_and_an_epoch_leaves_an_event_and_a_checkpoint():
    attempt = FakeAttempt()

    follow(reports(), lambda: {"epoch": 1}, attempt)

    assert [progress.step for progress in attempt.told] == [1, 2]
    assert [(kind, data["miou"]) for kind, data in attempt.events] == [("epoch", 0.25)]
    assert [progress.miou for _, progress in attempt.checkpoints] == [0.25]


def test_a_value_stays_shown_until_there_is_a_newer_one():
    attempt = FakeAttempt()

    follow(reports(), dict, attempt)

    assert [progress.latency_ms for progress in attempt.told] == [5.0, 5.0]


def test_a_checkpoint_is_restored():
    attempt = FakeAttempt()
    follow(reports(), lambda: {"epoch": 1, "best": None}, attempt)

    state = restored(attempt, CheckpointRef(sha256="0" * 64, size=1, progress=attempt.told[-1]))

    assert state == {"epoch": 1, "best": None}


def test_work_stops_at_the_next_step():
    attempt = FakeAttempt(stop_after=1)

    with pytest.raises(Stopped):
        follow(reports(), dict, attempt)

    assert len(attempt.told) == 1
    assert attempt.checkpoints == []


def measurements() -> Generator[MeasurementProgress, None, str]:
    for done in (1, 2):
        yield MeasurementProgress(done=done, total=2, key="conv", seconds_left=1.0, max_drift=0.0)
    return "table"


def test_a_measurement_is_told_within_its_share_of_the_job():
    attempt = FakeAttempt()

    result = follow_measurement(measurements(), "measure", 0.5, 1.0, attempt)

    assert result == "table"
    assert [progress.fraction for progress in attempt.told] == [0.75, 1.0]


def test_a_measurement_stops_between_two_operators():
    with pytest.raises(Stopped):
        follow_measurement(measurements(), "measure", 0.0, 1.0, FakeAttempt(stop_after=1))


def test_counted_items_tell_how_many_are_done():
    attempt = FakeAttempt()

    assert list(counted("abcd", 4, "evaluate", 0.5, 1.0, attempt)) == list("abcd")
    assert [progress.fraction for progress in attempt.told] == [0.625, 0.75, 0.875, 1.0]
