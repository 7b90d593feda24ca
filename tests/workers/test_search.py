from fasterseg_core.reports import EpochReport, StepReport
from services.workers.search import warned
from tests.workers.fakes import FakeAttempt

STEP = StepReport(phase="search", epoch=1, epochs=2, step=1, steps=1, fraction=0.5, loss=1.0)
HEALTHY = EpochReport(phase="search", epoch=1, loss=1.0)
COLLAPSING = EpochReport(phase="search", epoch=2, loss=1.0, warning="the student is collapsing")


def test_a_warning_is_left_as_an_event_and_every_report_goes_on():
    attempt = FakeAttempt()

    reports = list(warned([STEP, HEALTHY, COLLAPSING], attempt))

    assert reports == [STEP, HEALTHY, COLLAPSING]
    assert attempt.events == [
        ("warning", {"phase": "search", "epoch": 2, "message": "the student is collapsing"}),
    ]
