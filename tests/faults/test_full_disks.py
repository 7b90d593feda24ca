"""Disks without room: of the control plane's blobs, of its database, and of a worker."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from services.storage.tables import JobRow
from tests.faults.conftest import MakeService
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for
from tests.serving import TOKEN

ROW_12 = pytest.mark.row(12, "disk full for blobs, database, worker: 507 or 503, nothing half visible, goes on after")
CHUNK = bytes(4096)


@contextmanager
def a_small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at a folder."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is left on a folder's disk meanwhile."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(CHUNK)
    try:
        yield
    finally:
        ballast.unlink()


def answers(service: Service, status: int) -> int:
    """How many requests were answered by a status."""
    return service.planes[0].log.read_text().count(f" status={status} ")


@pytest.mark.fault
@pytest.mark.timeout(600)
@ROW_12
def test_a_job_counts_on_while_its_blobs_have_no_room(tmp_path: Path, make_service: MakeService, record_property):
    with a_small_disk(tmp_path / "blobs", 20_000_000):
        service = make_service()
        service.start()
        service.plan(Plan(epochs=20, steps=5, state_bytes=2_000_000))
        job = service.submit()
        wait_for(lambda: len(service.events(job, "checkpoint")) >= 2, "it has checkpoints")

        with filled(tmp_path / "blobs"):
            wait_for(lambda: answers(service, 507) >= 2, "a checkpoint was refused")
            service.wait_for_steps(job, service.planned.total)
            record_property("refused for want of room", answers(service, 507))
        service.succeeded(job)

        service.wait_for_logs()
        assert list((tmp_path / "blobs").glob("incoming-*")) == [], "nothing half written stays"
        check(service)
        service.close()


@pytest.mark.fault
@pytest.mark.timeout(600)
@ROW_12
def test_a_job_goes_on_once_the_database_has_room(tmp_path: Path, make_service: MakeService, record_property):
    with a_small_disk(tmp_path / "database", 20_000_000):
        service = make_service(DATABASE_URL=f"sqlite:///{tmp_path / 'database' / 'fasterseg.db'}")
        plane = service.start()
        service.plan(Plan(epochs=20, steps=5))
        job = service.submit()
        service.wait_for_steps(job, 10)

        with filled(tmp_path / "database"):
            body = {"kind": "profile", "preset": "quick"}
            headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "refused"}
            answer = httpx.post(f"{plane.url}/api/v1/jobs", json=body, headers=headers, timeout=60)
            assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5")
            service.wait_for_steps(job, service.planned.total)
            record_property("refused while the database was full", answers(service, 503))
        service.succeeded(job)

        with closing(service.database.engine.raw_connection()) as connection:
            assert connection.cursor().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert len(service.rows(JobRow.id)) == 1, "what was refused is not there"
        check(service)
        service.close()


@pytest.mark.fault
@pytest.mark.timeout(600)
@ROW_12
def test_a_worker_without_room_for_its_state_is_followed_by_one_that_has_it(
    service: Service, ray: RayStandIn, record_property
):
    service.start()
    service.plan(Plan(epochs=20, steps=5, state_bytes=200_000))
    job = service.submit()
    wait_for(lambda: len(service.events(job, "checkpoint")) >= 2, "it has checkpoints")
    pid = ray.processes[f"fasterseg-{job}-1"].pid
    assert pid is not None

    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, most))  # of a file: as if the disk were full
    waited = wait_for(lambda: len(service.events(job, "requeued")) == 1, "it is requeued")
    record_property("seconds to requeue a worker without room", waited)

    service.succeeded(job)
    assert min(step for epoch, step in service.steps(job) if epoch == 2) > 1, "it resumed"
    check(service)
