"""A real Ray head that can be killed in parts and started again at the same address, and the jobs that run there."""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from services.embedded import ray_head
from services.embedded.processes import Run, is_alive, launch, members, new_run, stop
from services.embedded.settings import Settings
from services.storage.folder_store import FolderStore
from tests.faults.control_plane import Periods
from tests.faults.counting_worker import FOLDER
from tests.faults.service import Service, wait_for
from tests.proc import of_process
from tests.serving import TOKEN, environment

ROOT = Path(__file__).parents[2]
START_SECONDS = 300.0  # of a head, and of the first worker
MACHINE = "machine"  # as a part: the whole head, with the drivers and workers that would have outlived it


class RayHead:
    """One at a time runs; what an earlier one left is found, too."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        ports = {"port": 1, "profiler_port": 1}  # of processes that are not started here
        self._settings = Settings(state=folder, dashboard_port=ray_head.free_port(), data_root=None, cpus=1, **ports)
        self._command = ray_head.command(self._settings, ray_head.free_port(), temporary / "ray")
        self._runs: list[Run] = []
        self.token_file = self._settings.token_file
        self.url = self._settings.dashboard_url
        ray_head.make_token(self.token_file)

    def start(self, **variables: str) -> None:
        """Starts it, with other variables than the service's where some are given; returns once it answers."""
        ours = ray_head.environment(self._settings) | {"PYTHONPATH": str(ROOT), FOLDER: str(self._settings.state)}
        others = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FASTERSEG_"))}
        run = new_run(self._settings, Path())
        log = self._settings.state / "ray.log"
        self._runs.append(launch(run, "ray", self._command, others | ours | variables, log))
        wait_for(lambda: self._answer("version") is not None, f"the Ray head answers, see {log}", START_SECONDS)

    def kill(self, part: str) -> None:
        """Sends SIGKILL to one program, or to everything; returns once the head is down, as it then is as a whole."""
        run = self._runs[-1]
        pids = [pid for pid in members(run) if part in (MACHINE, _program(pid))]
        assert pids != [], f"no {part} runs"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(run, run.processes[0]), "what is left of the head ends")

    def running(self) -> set[str]:
        """The jobs that it calls running, and those of which a process is left."""
        jobs = self._answer("jobs/")
        assert isinstance(jobs, list)
        called = {str(job["submission_id"]) for job in jobs if job["status"] in ("PENDING", "RUNNING")}
        return called | {name for run in self._runs for pid in members(run) for name in _submission(pid)}

    def close(self) -> None:
        """Ends every process of every head, and those that they started."""
        for run in self._runs:
            stop(run)

    def _answer(self, what: str) -> object:
        """What its API says; None where it does not answer."""
        headers = {"Authorization": f"Bearer {self.token_file.read_text()}"}
        try:
            return httpx.get(f"{self.url}/api/{what}", headers=headers, timeout=10).raise_for_status().json()
        except httpx.HTTPError:
            return None


@contextmanager
def a_ray_head(folder: Path) -> Iterator[RayHead]:
    """One that is not started; nothing of it is left afterwards."""
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short path
    head = RayHead(folder, temporary)
    try:
        yield head
    finally:
        head.close()
        shutil.rmtree(temporary)


@contextmanager
def service_on_ray(folder: Path, head: RayHead) -> Iterator[Service]:
    """A service with the periods of the service, whose workers count on a real Ray."""
    (folder / "api.token").write_text(TOKEN)
    database_url = f"sqlite:///{folder / 'fasterseg.db'}"
    settings = {
        "DATABASE_URL": database_url,
        "RAY_ADDRESS": head.url,
        "RAY_TOKEN_PATH": str(head.token_file),
        "WORKER_COMMAND": f"{sys.executable} -m tests.faults.counting_driver",
    }
    service = Service(
        folder=folder,
        environment=environment(folder, **settings),
        ray=head,
        store=FolderStore(folder / "blobs"),
        periods=Periods(),
        database_url=database_url,
    )
    try:
        yield service
    finally:
        service.close()


def _program(pid: int) -> str:
    """What a process runs, by its name; none where it is gone."""
    return Path(of_process(pid, "cmdline").decode().split("\0")[0]).name


def _submission(pid: int) -> list[str]:
    """The attempt that a driver works for, from its environment, or a task, from the title that Ray gives it."""
    of_driver = re.findall(rb"FASTERSEG_SUBMISSION_ID=([^\0]*)", of_process(pid, "environ"))
    of_task = re.findall(rb"^ray::\w+ ([^\0]*)", of_process(pid, "cmdline"))
    return [name.decode() for name in of_driver + of_task]
