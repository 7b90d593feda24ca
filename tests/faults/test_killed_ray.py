"""A real Ray head of which a part is killed, or all; its jobs go on once it is back, each with one writer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_head import MACHINE, START_SECONDS, RayHead, a_ray_head, service_on_ray
from tests.faults.service import wait_for

AGAIN_SECONDS = 90.0


@pytest.fixture
def head(tmp_path: Path) -> Iterator[RayHead]:
    with a_ray_head(tmp_path) as head:
        yield head


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.row(6, "SIGKILL of Ray's GCS, raylet, whole head: begun again within 90 s of its return, one writer")
@pytest.mark.parametrize("part", ["gcs_server", "raylet", MACHINE])
def test_a_job_begins_again_once_its_ray_is_back(tmp_path: Path, head: RayHead, part: str, record_property):
    with service_on_ray(tmp_path, head) as service:
        head.start()
        service.start()
        service.plan(Plan(epochs=15, steps=10, step_seconds=0.1))
        job = service.submit()
        wait_for(lambda: len(service.steps(job)) >= 25, "its worker counts", START_SECONDS)
        epoch = service.job(job).epoch

        head.kill(part)
        killed_at = len(service.steps(job))
        head.start()
        waited = wait_for(lambda: service.job(job).epoch > epoch, "another attempt begins", AGAIN_SECONDS)
        record_property(f"seconds from its return to the next attempt, {part}", waited)

        service.succeeded(job, 300)
        after = [by for by, _ in service.steps(job)[killed_at:]]
        record_property("steps by the first attempt after the head was down", after.count(epoch))
        assert after == sorted(after), "one worker at a time counts"
        check(service)
