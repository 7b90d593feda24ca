"""Control planes that are killed: at every place where a crash leaves something half done."""

import itertools
import time
from collections.abc import Iterable
from random import Random

import pytest

from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import Service

POINTS = 40  # about as many as a run comes by


def survive(service: Service, numbers: Iterable[int]) -> list[float]:
    """Kills the control plane at its nth fail-point, one job for each number, until a run comes by fewer.

    The seconds that each job took, from its submission to the last thing that is done for it.
    """
    service.plan(Plan(epochs=2, steps=3, step_seconds=0.01))
    plane = service.add_plane()
    taken = []
    for number in numbers:
        plane.kill()
        plane.start(killed_at=number)
        started_at = time.monotonic()
        with plane.kept_up() as deaths:
            job = service.submit(key=f"killed-at-{number}")
            service.succeeded(job)
            service.wait_for_logs()
        taken.append(time.monotonic() - started_at)
        assert [step for _, step in service.steps(job)] == list(range(1, service.planned.total + 1)), "none twice"
        check(service)
        if not deaths:
            return taken
    return taken


@pytest.mark.row(1, "SIGKILL of the API and the dispatcher at a fail-point: no step of a job is repeated")
def test_a_control_plane_killed_at_some_fail_points_repeats_nothing(service: Service, random: Random, record_property):
    taken = survive(service, sorted(random.sample(range(1, POINTS), 2)))

    record_property("runs", len(taken))
    record_property("seconds from submission to logs", max(taken))


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.row(1, "SIGKILL of the API and the dispatcher at a fail-point: no step of a job is repeated")
def test_a_control_plane_killed_at_every_fail_point_repeats_nothing(service: Service, record_property):
    taken = survive(service, itertools.count(1))

    record_property("runs", len(taken))
    record_property("seconds from submission to logs", max(taken))
