"""Users who cancel and pause, twice at the same moment, whatever a job is doing: it ends once."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from random import Random

import httpx
import pytest

from services.client.schemas import JobState
from tests.faults.conftest import MakeService
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for
from tests.serving import TOKEN

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.row(15, "cancel and pause in every state, twice, racing success: one final state"),
]

SHORT = Plan(epochs=1, steps=5)
LONG = Plan(epochs=40, steps=5)  # it has not succeeded before it is told to stop


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, make_service: MakeService) -> Service:
    """A service on each kind of database, whose control plane is up."""
    on_server = request.param == "postgresql"
    service = make_service(DATABASE_URL=request.getfixturevalue("postgres").url) if on_server else make_service()
    service.start()
    service.plan(SHORT)
    return service


def tell(service: Service, job: str, *actions: str) -> list[int]:
    """The statuses with which the service answers what it is told at the same moment."""

    def post(action: str) -> int:
        url = f"{service.url}/api/v1/jobs/{job}/{action}"
        return httpx.post(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60).status_code

    with ThreadPoolExecutor(len(actions)) as users:
        return list(users.map(post, actions))


# ---- jobs in each state, until the context is left ------------------------------------------------------------------


@contextmanager
def queued(service: Service, ray: RayStandIn) -> Iterator[str]:
    ray.is_away = True
    yield service.submit()
    ray.is_away = False


@contextmanager
def paused(service: Service, ray: RayStandIn) -> Iterator[str]:
    with queued(service, ray) as job:
        tell(service, job, "pause")
        yield job


@contextmanager
def pending(service: Service, ray: RayStandIn) -> Iterator[str]:
    service.plan(LONG)
    ray.holds_back = True
    job = service.submit()
    wait_for(lambda: f"fasterseg-{job}-1" in ray.running(), "Ray has the job")
    yield job
    ray.release()


@contextmanager
def running(service: Service, ray: RayStandIn) -> Iterator[str]:
    service.plan(LONG)
    job = service.submit()
    service.wait_for_steps(job, 3)
    yield job


@contextmanager
def stopping(service: Service, ray: RayStandIn) -> Iterator[str]:
    with running(service, ray) as job:
        tell(service, job, "pause")
        yield job


@contextmanager
def waiting_for_another(service: Service, ray: RayStandIn) -> Iterator[str]:
    with queued(service, ray) as parent, service.client() as client:
        job = client.submit("profile", preset="quick", after=[parent]).id
        service.acknowledged.append(job)
        yield job


@contextmanager
def succeeded(service: Service, ray: RayStandIn) -> Iterator[str]:
    yield service.succeeded(service.submit()).id


@contextmanager
def failed(service: Service, ray: RayStandIn) -> Iterator[str]:
    with queued(service, ray) as parent, service.client() as client:
        job = client.submit("profile", preset="quick", after=[parent]).id
        service.acknowledged.append(job)
        client.cancel(parent)
        yield job


@contextmanager
def cancelled(service: Service, ray: RayStandIn) -> Iterator[str]:
    with queued(service, ray) as job:
        tell(service, job, "cancel")
        yield job


# Each of these is one test for all states, because a service takes longer to start than a job to end.

State = Callable[[Service, RayStandIn], AbstractContextManager[str]]
OPEN: list[State] = [queued, paused, pending, running, stopping, waiting_for_another]
OVER: list[tuple[State, int]] = [(succeeded, 409), (failed, 409), (cancelled, 200)]  # and what a cancellation answers


def test_a_job_that_is_cancelled_twice_is_cancelled_once(service: Service, ray: RayStandIn, record_property):
    record_property("runs", len(OPEN))
    for state in OPEN:
        service.plan(SHORT)
        with state(service, ray) as job:
            assert tell(service, job, "cancel", "cancel") == [200, 200]

        assert service.finished(job).state is JobState.CANCELLED
        assert len(service.events(job, "cancel_requested")) == 1
    check(service)


def test_a_job_that_is_paused_twice_goes_on_once_it_is_resumed(service: Service, ray: RayStandIn, record_property):
    record_property("runs", len(OPEN))
    for state in OPEN:
        service.plan(SHORT)
        with state(service, ray) as job:
            assert tell(service, job, "pause", "pause") == [200, 200]
        wait_for(lambda job=job: service.job(job).state is JobState.QUEUED, "it is paused")
        assert tell(service, job, "resume", "resume") == [200, 200]

        service.succeeded(job)
        assert len(service.events(job, "resumed")) == 1
    check(service)


def test_a_job_that_is_over_stays_as_it_is(service: Service, ray: RayStandIn, record_property):
    record_property("runs", len(OVER))
    for state, again in OVER:
        with state(service, ray) as job:
            before = service.job(job)

            assert tell(service, job, "pause", "pause", "resume") == [409, 409, 409]
            assert tell(service, job, "cancel", "cancel") == [again, again]
            assert service.job(job) == before
    check(service)


def race(service: Service, random: Random, runs: int) -> int:
    """How many of so many jobs were cancelled; all are told to stop between their first step and their success."""
    service.plan(Plan(epochs=10, steps=5))
    job = service.submit()
    service.wait_for_steps(job, 1)
    longest = wait_for(lambda: service.job(job).state.is_final, "it is over")
    ends = []
    for _ in range(runs):
        job = service.submit()
        service.wait_for_steps(job, 1)
        time.sleep(random.uniform(0, longest))
        told = random.sample(["cancel", "cancel", "pause", "pause"], random.randint(2, 4))
        assert set(tell(service, job, *told)) <= {200, 409}
        wait_for(lambda job=job: service.job(job).state is not JobState.RUNNING, "it is paused or over")
        tell(service, job, "resume")
        ends.append(service.finished(job).state)
    assert set(ends) <= {JobState.SUCCEEDED, JobState.CANCELLED}
    return ends.count(JobState.CANCELLED)


def test_a_job_told_to_stop_as_it_succeeds_has_one_end(service: Service, random: Random, record_property):
    runs = 10
    record_property("cancelled of 10", race(service, random, runs))
    record_property("runs", runs)
    check(service)
