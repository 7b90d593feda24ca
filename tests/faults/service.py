"""A service of real processes that a test can break, piece by piece: control planes, database, store, Ray, workers."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from services.client.client import FasterSegClient
from services.client.errors import FasterSegError
from services.client.schemas import Job, JobState
from services.embedded.ray_head import free_port
from services.storage.attempt_logs import is_whole
from services.storage.blob_store import BlobStore
from services.storage.database import Database, open_database
from services.storage.tables import AttemptRow
from tests.faults import counting_worker
from tests.faults.control_plane import Periods, serve
from tests.faults.counting_worker import Plan
from tests.faults.processes import started
from tests.serving import TOKEN

LONGEST_SECONDS = 120.0  # that a test waits for anything, unless it says otherwise

Answer = TypeVar("Answer")
Value = TypeVar("Value")


class Ray(Protocol):
    """What the checks ask of Ray, of the real one and of its stand-in."""

    def running(self) -> set[str]:
        """The submission ids of the jobs that are not over."""
        ...


@dataclass
class ControlPlane:
    """One replica: its address stays the same when it is started again."""

    environment: dict[str, str]
    periods: Periods
    log: Path
    url: str
    process: BaseProcess | None = None

    def start(self, killed_at: int | None = None) -> None:
        """Starts its process, to be killed at a fail-point, and does not wait for it."""
        self.process = started(serve, self.environment, self.periods, killed_at, self.log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it at once, or as the signal does, and waits until it is gone."""
        process, self.process = self.process, None
        if process is not None:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)
            process.join()
            process.close()

    @contextmanager
    def kept_up(self) -> Iterator[list[float]]:
        """Starts it again whenever it died, as systemd, Kubernetes and compose do; the moments at which it did."""
        stop, deaths = threading.Event(), list[float]()

        def restart() -> None:
            while not stop.wait(0.02):
                if not self.is_alive:
                    deaths.append(time.monotonic())
                    self.kill()
                    self.start()

        supervisor = threading.Thread(target=restart)
        supervisor.start()
        try:
            yield deaths
        finally:
            stop.set()
            supervisor.join()

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.is_alive()

    def wait_until_up(self) -> None:
        """Returns once it answers."""
        wait_for(lambda: self.answers, f"the control plane answers, see {self.log}")

    @property
    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            httpx.get(f"{self.url}/api/v1/jobs", timeout=2)  # refused for want of a token: an answer
        except httpx.TransportError:
            return False
        return True


@dataclass
class Service:
    """Everything of one service, and what was promised to its users: the jobs that it acknowledged."""

    folder: Path
    environment: dict[str, str]  # of its control planes
    ray: Ray
    store: BlobStore
    periods: Periods
    database_url: str
    planes: list[ControlPlane] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database: Database = open_database(self.database_url)
        self.plan(Plan())

    def plan(self, plan: Plan) -> None:
        """What the attempts that start from now on have to do."""
        self.planned = plan
        plan.write(self.folder)

    def add_plane(self) -> ControlPlane:
        """One more replica, which is not started."""
        port = free_port()
        environment = self.environment | {"FASTERSEG_PORT": str(port)}
        log = self.folder / f"control-plane-{len(self.planes)}.log"
        plane = ControlPlane(environment, self.periods, log, f"http://127.0.0.1:{port}")
        self.planes.append(plane)
        return plane

    def start(self) -> ControlPlane:
        """Its first control plane, up."""
        plane = self.add_plane()
        plane.start()
        plane.wait_until_up()
        return plane

    @property
    def url(self) -> str:
        """How users and workers reach it."""
        return self.environment.get("FASTERSEG_PUBLIC_URL") or self.planes[0].url

    @contextmanager
    def client(self) -> Iterator[FasterSegClient]:
        """A user's client."""
        with FasterSegClient(self.url, token=TOKEN) as client:
            yield client

    def submit(self, *, key: str | None = None) -> str:
        """The id of an acknowledged job; asked for again while the service is away."""
        with self.client() as client:
            job = eventually(lambda: client.submit("profile", preset="quick", idempotency_key=key))
        if job.id not in self.acknowledged:
            self.acknowledged.append(job.id)
        return job.id

    def job(self, job_id: str) -> Job:
        """A job as it is, asked for again while the service is away."""
        with self.client() as client:
            return eventually(lambda: client.job(job_id))

    def finished(self, job_id: str, seconds: float = LONGEST_SECONDS) -> Job:
        """A job, once it is over."""
        wait_for(lambda: self.job(job_id).state.is_final, f"job {job_id} is over", seconds)
        return self.job(job_id)

    def succeeded(self, job_id: str, seconds: float = LONGEST_SECONDS) -> Job:
        """A job, once it has succeeded with what an undisturbed one makes."""
        job = self.finished(job_id, seconds)
        assert job.state is JobState.SUCCEEDED, job.reason
        assert job.result == {"chain": counting_worker.undisturbed(self.planned), "epoch": job.epoch}
        with self.client() as client:
            assert client.artifact(job.artifacts[0].sha256).decode() == f"{job.result['chain']}\n"
        return job

    def events(self, job_id: str, kind: str) -> list[dict[str, object]]:
        """The data of a job's events of a kind."""
        with self.client() as client:
            return [event.data for event in eventually(lambda: list(client.events(job_id))) if event.kind == kind]

    def steps(self, job_id: str) -> list[tuple[int, int]]:
        """The (epoch of the attempt, step) of every step that was taken for a job."""
        return counting_worker.steps_taken(self.folder, job_id)

    def wait_for_steps(self, job_id: str, count: int) -> None:
        """Returns once so many steps were taken for a job."""
        wait_for(lambda: len(self.steps(job_id)) >= count, f"job {job_id} takes {count} steps")

    def wait_for_logs(self) -> None:
        """Returns once all that every attempt printed is kept, the last thing that is done for a job."""

        def are_whole() -> bool:
            with self.database.reading() as session:
                return all(map(is_whole, session.scalars(select(AttemptRow))))

        wait_for(are_whole, "all logs are kept")

    def rows(self, column: InstrumentedAttribute[Value]) -> list[Value]:
        """All values of a column."""
        with self.database.reading() as session:
            return list(session.scalars(select(column)))

    def close(self) -> None:
        """Ends its control planes; Ray and the database belong to who opened them."""
        for plane in self.planes:
            plane.kill()
        self.database.engine.dispose()


def eventually(ask: Callable[[], Answer], seconds: float = LONGEST_SECONDS) -> Answer:
    """What the service answers, asked again while it is away or says that it is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except FasterSegError as error:
            if error.retry_after_seconds is None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = LONGEST_SECONDS) -> float:
    """Returns once the condition holds, with the seconds that it took."""
    started_at = time.monotonic()
    while not condition():
        waited = time.monotonic() - started_at
        assert waited < seconds, f"waited {waited:.0f} s in vain until {what}"
        time.sleep(0.02)
    return time.monotonic() - started_at
