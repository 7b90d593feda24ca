import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded import processes
from services.embedded.processes import Run, is_alive, launch, load, members, new_run, save, stop
from services.embedded.settings import Settings

# Says when it runs, then waits; a child of its own session is like a driver that Ray starts.
WAIT = "import sys, time; print('ready', flush=True); time.sleep(600)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}], start_new_session=True).wait()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    settings = Settings(state=tmp_path, port=1, dashboard_port=2, profiler_port=3, data_root=None, cpus=1)
    run = new_run(settings, tmp_path / "ray")
    save(run)
    yield run
    stop(load(tmp_path) or run)


def started(run: Run, program: str) -> Run:
    """The run with a Python program that has printed its first line."""
    log = run.settings.state / "program.log"
    run = launch(run, "program", [sys.executable, "-c", program], {}, log)
    with subprocess.Popen(["tail", "--follow", "--lines=+1", log], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.terminate()
    return run


def test_a_launched_process_is_recorded(run: Run) -> None:
    run = started(run, WAIT)

    assert load(run.settings.state) == run
    assert [is_alive(run, process) for process in run.processes] == [True]


def test_stop_ends_what_was_started_in_a_session_of_its_own(run: Run) -> None:
    run = started(run, CHILD)
    assert len(members(run)) == 2

    stop(run)

    assert members(run) == []


def test_stop_kills_what_does_not_listen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    run = started(run, STUBBORN)

    stop(run)

    assert members(run) == []


def test_a_process_that_took_over_a_recorded_id_is_left_alone(run: Run) -> None:
    other = started(run, WAIT)
    recycled = run.model_copy(
        update={"id": "another", "processes": tuple(p.model_copy(update={"started": 2**62}) for p in other.processes)}
    )

    stop(recycled)

    assert [is_alive(other, process) for process in other.processes] == [True]
    assert [is_alive(recycled, process) for process in recycled.processes] == [False]


def test_nothing_of_a_run_before_the_last_boot_is_touched(run: Run) -> None:
    run = started(run, WAIT)

    assert members(run.model_copy(update={"boot": "an earlier one"})) == []
