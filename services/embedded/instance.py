"""One instance of the service on this machine: Ray, the control plane and the profiler, up and down together."""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import httpx
from pydantic import ValidationError

from services.client.schemas import Health
from services.embedded import ray_head
from services.embedded.processes import Run, forget, is_alive, launch, load, new_run, save, stop
from services.embedded.settings import HOST, Settings

START_SECONDS = 180.0
POLL_SECONDS = 0.1
LAST_LINES = 15  # of a log, in an error

Say = Callable[[str], None]


class StartError(Exception):
    """The service could not be started; nothing of it runs."""


def up(settings: Settings, say: Say) -> bool:
    """Starts the service and returns once it is healthy; whether it did not run yet.

    Raises:
        StartError: it runs with other settings, a port is taken, a process ended, or it did not become healthy in time.
    """
    with _locked(settings.state):
        run = load(settings.state)
        if run is not None and run.processes and all(is_alive(run, process) for process in run.processes):
            _refuse_other_settings(settings, run.settings)
            say(f"already up (state folder {settings.state})")
            return False
        if run is not None:
            say("cleaning up after a run that ended unexpectedly")
            _end(run)
        _refuse_taken_ports(settings)
        (settings.state / "logs").mkdir(exist_ok=True)
        for file in (settings.token_file, settings.api_token_file, settings.profiler_token_file):
            ray_head.make_token(file)
        run = new_run(
            settings, Path(tempfile.mkdtemp(prefix="fasterseg-", dir="/tmp"))
        )  # Ray's sockets need a short path
        save(run)
        try:
            _start(run, say)
        except BaseException:
            _end(load(settings.state) or run)
            raise
        return True


def _refuse_other_settings(wanted: Settings, running: Settings) -> None:
    for field in fields(Settings):
        here, there = getattr(wanted, field.name), getattr(running, field.name)
        if here != there:
            option = f"--{field.name.replace('_', '-')}"
            raise StartError(f"already up with {option} {there}, not {here}; stop it first: fasterseg down")


def down(state: Path, say: Say) -> None:
    """Stops what `up` started, and what that started; does nothing where nothing runs."""
    if not state.exists():
        say(f"not up (no state folder {state})")
        return
    with _locked(state):
        run = load(state)
        if run is None:
            say(f"not up (state folder {state})")
            return
        _end(run)
        say("stopped")


def status(state: Path, say: Say) -> bool:
    """Whether the service is healthy; says how each part is."""
    run = load(state)
    if run is None:
        say(f"not up (state folder {state})")
        return False
    for process in run.processes:
        say(f"{process.name:14} {'running' if is_alive(run, process) else 'ended'}, log {process.log}")
    missing = _what_is_missing(run.settings)
    say(missing or f"healthy at {run.settings.url}")
    return missing is None


def _start(run: Run, say: Say) -> None:
    settings = run.settings
    gcs_port = ray_head.free_port()
    logs = settings.state / "logs"
    shared = {"FASTERSEG_PROFILER_TOKEN": settings.profiler_token_file.read_text()}
    others = _environment(ray_head.client_environment(settings)) | shared

    say("starting Ray and the control plane")
    head = ray_head.command(settings, gcs_port, run.ray_folder / "ray")  # Ray opens its folder to everyone
    run = launch(run, "ray", head, _environment(ray_head.environment(settings)), logs / "ray.log")
    run = launch(run, "control-plane", _module("control_plane"), others | _control_plane(settings), logs / "api.log")
    _wait(run, lambda: None if _answers(gcs_port) else f"Ray does not answer on port {gcs_port}")

    say("starting the profiler")
    run = launch(run, "profiler", _module("profiler"), others | _profiler(settings, gcs_port), logs / "profiler.log")
    _wait(run, lambda: _what_is_missing(settings))


def _control_plane(settings: Settings) -> dict[str, str]:
    return {
        "FASTERSEG_STATE_FOLDER": str(settings.state),
        "FASTERSEG_HOST": HOST,
        "FASTERSEG_PORT": str(settings.port),
        "FASTERSEG_RAY_ADDRESS": settings.dashboard_url,
        "FASTERSEG_RAY_TOKEN_PATH": str(settings.token_file),
        "FASTERSEG_PROFILER_URL": settings.profiler_url,
        "FASTERSEG_FIRST_TOKEN_PATH": str(settings.api_token_file),
        "FASTERSEG_DISPATCH_SECONDS": "0.5",
        "FASTERSEG_MAX_RUNNING_JOBS": "2",  # one that runs and one whose driver waits for the cores
    }


def _profiler(settings: Settings, gcs_port: int) -> dict[str, str]:
    return {
        "RAY_ADDRESS": f"{HOST}:{gcs_port}",
        "FASTERSEG_CONTROL_PLANE_URL": settings.url,
        "FASTERSEG_PORT": str(settings.profiler_port),
    }


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"services.{name}"]


def _environment(additions: dict[str, str]) -> dict[str, str]:
    """This process's environment without other people's Ray and without the user's token, with additions."""
    left_out = ("RAY_", "FASTERSEG_TOKEN")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | additions


def _wait(run: Run, missing: Callable[[], str | None]) -> None:
    """Returns when nothing is missing any more."""
    deadline = time.monotonic() + START_SECONDS
    while (message := missing()) is not None:
        for process in run.processes:
            if not is_alive(run, process):
                raise StartError(
                    f"{process.name} ended while starting; the end of its log {process.log}:\n{_tail(process.log)}"
                )
        if time.monotonic() > deadline:
            logs = ", ".join(str(process.log) for process in run.processes)
            raise StartError(f"not up after {START_SECONDS:.0f} s: {message}; see {logs}")
        time.sleep(POLL_SECONDS)


def _what_is_missing(settings: Settings) -> str | None:
    health = _health(settings)
    if isinstance(health, str):
        return health
    parts = {name: getattr(health, name) for name in ("database", "store", "ray", "profiler")}
    missing = [f"{name}: {state}" for name, state in parts.items() if state != "ok"]
    return "; ".join(missing) or None


def _health(settings: Settings) -> Health | str:
    """What the control plane says of itself, or why it says nothing."""
    address = f"{settings.url}/api/v1/health"
    try:
        return Health.model_validate_json(httpx.get(address, timeout=10.0, trust_env=False).content)
    except httpx.TransportError as error:
        return f"the control plane does not answer at {address} ({error})"
    except ValidationError:
        return f"what answers at {address} is not FasterSeg's control plane"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _refuse_taken_ports(settings: Settings) -> None:
    ports = {
        "--port": settings.port,
        "--dashboard-port": settings.dashboard_port,
        "--profiler-port": settings.profiler_port,
    }
    for option, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise StartError(
                    f"port {port} is taken ({error.strerror}): stop what uses it, or choose another one with {option}"
                ) from error


def _end(run: Run) -> None:
    stop(run)
    shutil.rmtree(run.ray_folder, ignore_errors=True)  # it may have been removed by hand
    forget(run)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One command at a time for a state folder."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
