"""The processes of one run of the service: started, recorded in the state folder, and all of them found again.

A process is ours when its session is that of one we started, or when it carries the run's id in its environment: Ray
puts its drivers into sessions of their own, and its workers' titles overwrite their environment.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from services.embedded.settings import Settings

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.05
RUN_VARIABLE = "FASTERSEG_RUN"
_PROC = Path("/proc")


class Process(BaseModel):
    """A process that heads its own session; `started` is in clock ticks since the machine's start."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    started: int
    log: Path


class Run(BaseModel):
    """What one `up` started, recorded from before its first process on."""

    model_config = ConfigDict(frozen=True)

    id: str
    boot: str  # of the machine: process ids mean nothing after another
    settings: Settings
    ray_folder: Path
    processes: tuple[Process, ...] = ()


def new_run(settings: Settings, ray_folder: Path) -> Run:
    """A run without processes."""
    return Run(id=secrets.token_hex(16), boot=_boot(), settings=settings, ray_folder=ray_folder)


def load(state: Path) -> Run | None:
    """The run recorded in a state folder."""
    record = state / "run.json"
    return Run.model_validate_json(record.read_bytes()) if record.exists() else None


def save(run: Run) -> None:
    """Records a run, whole or not at all."""
    draft = run.settings.state / "run.json.new"
    draft.write_text(run.model_dump_json(indent=2))
    draft.replace(run.settings.state / "run.json")


def forget(run: Run) -> None:
    """Removes the record of a run that is over."""
    (run.settings.state / "run.json").unlink()


def launch(run: Run, name: str, command: list[str], env: dict[str, str], log: Path) -> Run:
    """The run with one more process, recorded; its output goes to a log file."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=env | {RUN_VARIABLE: run.id},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives this program: Popen need not warn that nobody waits for it
    stat = _Stat.of(process.pid)
    assert stat is not None  # a child stays visible until it is waited for
    started = Process(name=name, pid=process.pid, started=stat.started, log=log)
    run = run.model_copy(update={"processes": (*run.processes, started)})
    save(run)
    return run


def is_alive(run: Run, process: Process) -> bool:
    """Whether a process of a run still runs."""
    stat = _Stat.of(process.pid)
    return run.boot == _boot() and stat is not None and stat.runs and stat.started == process.started


def members(run: Run) -> list[int]:
    """The ids of all processes of a run that still run, workers and their drivers included."""
    if run.boot != _boot():
        return []
    since = {process.pid: process.started for process in run.processes}
    mark = f"{RUN_VARIABLE}={run.id}".encode()
    return [
        pid
        for pid, stat in _everyone()
        if stat.runs
        and ((stat.session in since and stat.started >= since[stat.session]) or mark in _environment(pid))
        and pid != os.getpid()
    ]


def stop(run: Run) -> None:
    """Ends every process of a run: the started ones are asked, the last one first; what is left is killed."""
    for process in reversed(run.processes):
        if is_alive(run, process):
            _signal([process.pid], signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while is_alive(run, process) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    while left := members(run):
        _signal(left, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


class _Stat(BaseModel):
    """What /proc/<pid>/stat says of a process; `runs` is false for one that is dead and only waits to be reaped."""

    runs: bool
    session: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "_Stat | None":
        try:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return cls(runs=fields[0] not in "ZX", session=int(fields[3]), started=int(fields[19]))


def _everyone() -> Iterable[tuple[int, _Stat]]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and (stat := _Stat.of(int(folder.name))) is not None:
            yield int(folder.name), stat


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or another user's
        return []


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
