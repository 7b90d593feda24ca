"""Clocks that jump by hours while jobs run: leases are measured by the database's, and by no other."""

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.client.schemas import JobState
from services.storage.tables import AttemptRow
from tests.faults.clocks import Clock, hours_before
from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for
from tests.postgresql import Server

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.row(13, "clocks of control plane and workers jump by 2 h: no lease ends early, no negative duration"),
]

PERIODS = replace(QUICK, lease=12)


@pytest.fixture
def clock(clock_of_processes: Clock | None) -> Iterator[Clock]:
    if clock_of_processes is None:
        pytest.skip("a C compiler is not installed: cc was not found")
    yield clock_of_processes
    clock_of_processes.jump(0)


def jump(service: Service, clock: Clock, hours: int) -> None:
    """Sets the clock of control plane and workers so many hours before the machine's; the control plane tells so."""
    clock.jump(hours)
    service.job(service.acknowledged[0])
    assert hours_before(service.planes[0].log) == pytest.approx(hours, abs=0.1)


@pytest.mark.parametrize("hours", [2, -2])
def test_clocks_that_are_not_the_databases_end_no_lease(
    make_service: MakeService, postgres: Server, clock: Clock, ray: RayStandIn, hours: int, record_property
):
    service = make_service(PERIODS, DATABASE_URL=postgres.url)
    service.start()
    service.plan(Plan(epochs=40, steps=5))
    job = service.submit()
    service.wait_for_steps(job, 5)
    jump(service, clock, hours)
    assert service.succeeded(job).epoch == 1, "no lease ends early"

    ray.stops_nothing = True
    job = service.submit()
    service.wait_for_steps(job, 5)
    jump(service, clock, -hours)
    ray.signal(f"fasterseg-{job}-1", signal.SIGSTOP)
    record_property("seconds to requeue", wait_for(lambda: service.job(job).epoch == 2, "another attempt begins"))
    ray.signal(f"fasterseg-{job}-1", signal.SIGCONT)
    service.succeeded(job)
    check(service)


def test_a_machine_that_was_suspended_ends_no_lease(make_service: MakeService, clock: Clock, ray: RayStandIn):
    service = make_service(PERIODS)  # SQLite: its clock is the control plane's
    service.start()
    service.plan(Plan(epochs=10_000, steps=5, step_seconds=0.1))
    job = service.submit()
    time.sleep(1.5 * PERIODS.lease)  # since then leases are reaped

    ray.signal(f"fasterseg-{job}-1", signal.SIGSTOP)
    jump(service, clock, 2)
    time.sleep(2)  # the dispatcher wakes before the worker does
    assert service.rows(AttemptRow.epoch) == [1], "no lease ends before its worker could be heard of"
    ray.signal(f"fasterseg-{job}-1", signal.SIGCONT)
    later = datetime.now(UTC) + timedelta(hours=1)
    wait_for(lambda: max(service.rows(AttemptRow.lease_until)) > later, "a worker is heard of after that")

    assert service.rows(AttemptRow.epoch) == [1], "no lease ends early"
    with service.client() as client:
        client.cancel(job)
    assert service.finished(job).state is JobState.CANCELLED
    check(service)
