"""What Ray is told of a job: everything at every step, because it forgets."""

import pytest

from fasterseg_core.reports import EpochReport, StepReport
from services.client.schemas import JobKind
from services.workers.metrics import GAUGES, JobMetrics


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What every gauge was set to."""
    values: list[tuple[str, float, dict[str, str]]] = []

    def remember(gauge: object, value: float, tags: dict[str, str]) -> None:
        values.append((gauge.info["name"].removeprefix("fasterseg_worker_"), value, tags))

    monkeypatch.setattr("ray.util.metrics.Gauge.set", remember)
    return values


def a_step(step: int) -> StepReport:
    return StepReport(phase="search", epoch=2, epochs=3, step=step, steps=9, fraction=0.5, loss=1.25)


def test_what_was_known_before_is_told_again_at_every_step(told: list[tuple[str, float, dict[str, str]]]) -> None:
    metrics = JobMetrics("0123456789ab", JobKind.SEARCH)
    metrics.step(a_step(1), 0.5, 3)
    metrics.checkpoint(0.75, 1000)
    metrics.epoch(EpochReport(phase="search", epoch=2, loss=1.0, latency_ms=4.5, miou=0.25))
    told.clear()

    metrics.step(a_step(2), 0.25, 0)

    assert {name: value for name, value, _ in told} == {
        "step_seconds": 0.25,
        "epoch": 2,
        "loss": 1.25,
        "waiting": 0,
        "checkpoint_seconds": 0.75,
        "checkpoint_bytes": 1000,
        "miou": 0.25,
        "latency_ms": 4.5,
    }
    assert {name for name, _, _ in told} == set(GAUGES)
    assert all(tags == {"job": "0123456789ab", "kind": "search"} for _, _, tags in told)
