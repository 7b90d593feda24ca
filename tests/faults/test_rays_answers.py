"""What Ray does and does not say: a job that it starts although the answer was lost, one that it does not stop."""

from dataclasses import replace

import pytest

from services.client.schemas import JobState
from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for

pytestmark = pytest.mark.row(7, "stop of a pending Ray job, lost reply of a submission: one execution")


def test_a_submission_whose_reply_is_lost_is_executed_once(make_service: MakeService, ray: RayStandIn, record_property):
    runs = 3
    service = make_service(replace(QUICK, lease=12))
    service.start()
    ray.lost_replies = runs

    jobs = [service.submit() for _ in range(runs)]

    for job in jobs:
        service.succeeded(job)
        assert service.steps(job) == [(1, step) for step in range(1, service.planned.total + 1)]
    assert ray.lost_replies == 0
    record_property("runs", runs)
    check(service)


def test_a_cancelled_job_that_ray_starts_all_the_same_takes_no_step(service: Service, ray: RayStandIn, record_property):
    service.start()
    ray.holds_back = True
    job = service.submit()
    name = f"fasterseg-{job}-1"
    wait_for(lambda: name in ray.running(), "Ray has the job")
    with service.client() as client:
        client.cancel(job)
    assert service.finished(job).state is JobState.CANCELLED
    wait_for(lambda: name in ray.stops, "Ray is asked to stop it")
    assert name in ray.running(), "which it does not, of a job that is pending"

    ray.release()

    record_property("seconds to its end", wait_for(lambda: name not in ray.running(), "it ends itself"))
    assert service.steps(job) == []
    check(service)
