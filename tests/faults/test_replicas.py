"""Control planes side by side on one database and behind one address, killed in turn while users submit."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from services.storage.tables import AttemptRow
from tests.faults.balancer import Balancer, load_balancer
from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import Service
from tests.postgresql import Server

USERS = 6


@pytest.fixture
def balancer() -> Iterator[Balancer]:
    with load_balancer() as balancer:
        yield balancer


def keep_busy(service: Service, user: int, stop: threading.Event) -> None:
    """One job after the other of one user, each acknowledged and waited for, until `stop` is set."""
    for number in itertools.count():
        if stop.is_set():
            return
        service.succeeded(service.submit(key=f"user-{user}-{number}"))


@pytest.mark.row(2, "three replicas, one killed every 2 s under load: no job is claimed twice")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_replicas_that_are_killed_in_turn_claim_no_job_twice(
    balancer: Balancer, make_service: MakeService, postgres: Server, record_property
):
    kills = 10
    periods = replace(QUICK, lease=12, resubmit=5)  # who was told to come again does so after 5 s
    service = make_service(periods, DATABASE_URL=postgres.url, PUBLIC_URL=balancer.url)
    service.plan(Plan(epochs=2, steps=5))
    planes = [service.start() for _ in range(3)]
    balancer.ports += [int(plane.environment["FASTERSEG_PORT"]) for plane in planes]
    stop = threading.Event()
    with ThreadPoolExecutor(USERS) as users:
        loads = [users.submit(keep_busy, service, user, stop) for user in range(USERS)]
        for plane in itertools.islice(itertools.cycle(planes), kills):
            time.sleep(2)
            plane.kill()
            plane.start()
            plane.wait_until_up()  # the others serve meanwhile
        stop.set()
    for load in loads:
        load.result()
    for job in service.acknowledged:
        steps = service.steps(job)
        assert len(set(steps)) == len(steps), "no attempt is run twice"
    record_property("runs", kills)
    record_property("jobs", len(service.acknowledged))
    record_property("attempts at a job", max(service.rows(AttemptRow.epoch)))
    check(service)
