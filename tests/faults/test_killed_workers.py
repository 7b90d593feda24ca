"""Workers that are killed, stopped and go on as zombies, or die while a checkpoint is on its way."""

import signal
import time
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import update

from services.storage.collection import collect
from services.storage.database import database_now
from services.storage.tables import BlobRow, CheckpointRow, EventRow
from tests.faults.conftest import MakeService
from tests.faults.control_plane import Periods
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for


@pytest.mark.fault  # tests/integration kills one on Ray, too
@pytest.mark.timeout(900)
@pytest.mark.row(3, "SIGKILL of a worker at a random step: requeued within 80 s, the same result to the bit")
def test_a_killed_worker_loses_at_most_the_steps_since_its_last_checkpoint(
    service: Service, ray: RayStandIn, random: Random, record_property
):
    jobs, kills = 17, 3
    service.start()
    service.plan(Plan(epochs=8, steps=5, step_seconds=0.1))  # an epoch takes longer than to send a checkpoint
    for _ in range(jobs):
        job = service.submit()
        for epoch in range(1, kills + 1):
            wait_for_step(service, job, 10 * epoch + random.randint(2, 8))
            ray.signal(f"fasterseg-{job}-{epoch}", signal.SIGKILL)
            record_property("seconds to requeue", until_requeued(service, job, epoch))
        service.succeeded(job)
        assert again(service.steps(job)) <= kills * 2 * service.planned.steps  # one is sent while the next is counted
    record_property("runs", jobs * kills)
    check(service)


def until_requeued(service: Service, job: str, times: int) -> float:
    """The seconds that it takes until the job was, so many times in all."""
    return wait_for(lambda: len(service.events(job, "requeued")) == times, "it is requeued", 80)


def wait_for_step(service: Service, job: str, number: int) -> None:
    """Returns once this step was taken."""
    wait_for(lambda: any(step >= number for _, step in service.steps(job)), f"job {job} takes step {number}")


def again(steps: list[tuple[int, int]]) -> int:
    """How many of the steps were taken that had been taken before."""
    return len(steps) - len({step for _, step in steps})


def a_zombie(service: Service, ray: RayStandIn) -> str:
    """A job whose first worker was stopped until its lease was lost, and goes on where it was."""
    ray.stops_nothing = True  # its node cannot be reached
    service.start()
    service.plan(Plan(epochs=40, steps=5))
    job = service.submit()
    name = f"fasterseg-{job}-1"
    service.wait_for_steps(job, 7)
    ray.signal(name, signal.SIGSTOP)
    wait_for(lambda: service.job(job).epoch == 2, "another attempt begins", 240)
    service.wait_for_steps(job, len(service.steps(job)) + 3)
    ray.signal(name, signal.SIGCONT)
    return job


def outlive(service: Service, ray: RayStandIn, job: str) -> float:
    """The seconds that a zombie takes to end itself; what it does meanwhile changes nothing."""
    name = f"fasterseg-{job}-1"
    seconds = wait_for(lambda: name not in ray.running(), "the zombie ends", 15)
    service.succeeded(job, 240)
    by_first = [event for event in service.rows(EventRow) if event.attempt == name]
    began = next(event.sequence for event in service.rows(EventRow) if event.kind == "started" and event.epoch == 2)
    assert all(event.sequence < began for event in by_first), "nothing of the zombie was accepted"
    check(service)
    return seconds


@pytest.mark.row(4, "a worker stopped longer than its lease, then continued: nothing accepted, gone within 15 s")
def test_a_zombie_writes_nothing_and_ends_itself(service: Service, ray: RayStandIn, record_property):
    record_property("seconds to its end", outlive(service, ray, a_zombie(service, ray)))


@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.row(4, "a worker stopped longer than its lease, then continued: nothing accepted, gone within 15 s")
def test_a_zombie_writes_nothing_and_ends_itself_at_the_periods_of_the_service(
    make_service: MakeService, ray: RayStandIn, record_property
):
    service = make_service(periods=Periods())
    record_property("seconds to its end", outlive(service, ray, a_zombie(service, ray)))


@pytest.mark.row(5, "SIGKILL of a worker while a checkpoint is on its way: the one before serves, leftovers go")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_worker_killed_while_it_sends_a_checkpoint_resumes_from_the_one_before(
    service: Service, ray: RayStandIn, random: Random, record_property
):
    runs = 5
    service.start()
    service.plan(Plan(epochs=6, steps=3, step_seconds=0.05, state_bytes=20_000_000))  # a while on its way
    for _ in range(runs):
        job = service.submit()
        service.wait_for_steps(job, random.randint(4, 12))
        time.sleep(random.uniform(0.0, 0.2))  # anywhere between writing, sending, and naming it
        ray.signal(f"fasterseg-{job}-1", signal.SIGKILL)
        service.succeeded(job)
    service.wait_for_logs()
    _age_blobs(service)

    collect(service.database, service.store, timedelta(hours=1))

    assert set(service.rows(BlobRow.sha256)) == _stored(service), "bytes without a row, or a row without bytes"
    assert len(service.rows(CheckpointRow.sha256)) == runs, "of a job that has succeeded one checkpoint stays"
    assert list(service.folder.glob("blobs/incoming-*")) == [], "nothing half written stays"
    record_property("runs", runs)
    check(service)


def _age_blobs(service: Service) -> None:
    with service.database.writing.begin() as session:
        session.execute(update(BlobRow).values(created_at=database_now(session) - timedelta(hours=2)))


def _stored(service: Service) -> set[str]:
    return {path.name for path in service.folder.glob("blobs/??/*")}
