from io import StringIO

import pytest
from rich.console import Console

from services.client.client import FasterSegClient
from services.client.progress import details, watch
from services.client.schemas import JobState
from tests.client.fake_control_plane import FakeControlPlane, a_failed_job, a_job, a_progress

RUNNING = JobState.RUNNING


def a_console(is_terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_plain_output_is_a_line_for_each_state_phase_and_epoch(
    plane: FakeControlPlane, client: FasterSegClient
) -> None:
    console = a_console(is_terminal=False)
    job_id = plane.add(
        a_job(name="small"),
        a_job(name="small", state=RUNNING, progress=a_progress(epoch=1, step=1, fraction=0.1, loss=2.5)),
        a_job(name="small", state=RUNNING, progress=a_progress(epoch=1, step=2, fraction=0.2, loss=2.0)),
        a_job(name="small", state=RUNNING, progress=a_progress(epoch=2, step=1, fraction=0.5, loss=1.0)),
        a_job(name="small", state=JobState.SUCCEEDED, progress=a_progress(epoch=2, fraction=0.9)),
    )

    watch(client, [job_id], console, poll_seconds=0.001)

    assert printed(console).splitlines() == [
        "search small    0%  queued",
        "search small   10%  search  epoch 1/5  step 1/10  loss 2.5",
        "search small   50%  search  epoch 2/5  step 1/10  loss 1",
        "search small  100%  succeeded",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_watch_returns_the_final_jobs_in_the_order_asked(
    plane: FakeControlPlane, client: FasterSegClient, is_terminal: bool
) -> None:
    slow = plane.add(a_job(id="000000000001"), a_job(id="000000000001", state=JobState.SUCCEEDED))
    quick = plane.add(a_failed_job(id="000000000002"))

    jobs = watch(client, [slow, quick], a_console(is_terminal), poll_seconds=0.001)

    assert [(job.id, job.state) for job in jobs] == [(slow, "succeeded"), (quick, "failed")]


def test_a_terminal_shows_a_bar_for_each_job_with_what_became_of_it(
    plane: FakeControlPlane, client: FasterSegClient
) -> None:
    console = a_console(is_terminal=True)
    done = plane.add(a_job(id="000000000001", name="small", state=JobState.SUCCEEDED))
    failed = plane.add(a_failed_job("[/] no such data set\nlook again", id="000000000002"))

    watch(client, [done, failed], console, poll_seconds=0.001)

    assert "search small" in printed(console)
    assert "100% succeeded" in printed(console)
    assert "failed: [/] no such data set" in printed(console)
    assert "look again" not in printed(console)


def test_a_requested_cancellation_is_shown(plane: FakeControlPlane, client: FasterSegClient) -> None:
    console = a_console(is_terminal=False)
    job_id = plane.add(a_job(state=RUNNING, cancel_requested=True), a_job(state=JobState.CANCELLED))

    watch(client, [job_id], console, poll_seconds=0.001)

    assert "running, to be cancelled" in printed(console)
    assert "cancelled" in printed(console).splitlines()[-1]


def test_details_name_every_value_with_its_unit() -> None:
    progress = a_progress(seconds_left=3725.0, loss=0.98765, latency_ms=12.3456, miou=0.41)

    assert details(progress) == ("search  epoch 2/5  step 3/10  eta 1:02:05  loss 0.9877  latency 12.35 ms  mIoU 0.410")


def test_details_leave_out_what_is_not_known() -> None:
    assert details(a_progress(phase="measure", epochs=0, steps=0, seconds_left=65.4)) == "measure  eta 1:05"
