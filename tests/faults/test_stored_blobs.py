"""Blobs that the store damages or loses, and a store that is slow, lies or is away."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import wait_for


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def delete(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    ours, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(ours)


@pytest.mark.row(11, "a stored checkpoint flipped, truncated, deleted, swapped: an older one serves, the job finishes")
@pytest.mark.fault
@pytest.mark.parametrize("damage", [flip, truncate, delete, swap])
def test_a_job_whose_newest_checkpoint_is_damaged_goes_on_from_an_older_one(
    make_service: MakeService, ray: RayStandIn, damage, record_property
):
    service = make_service(replace(QUICK, lease=12))
    service.start()
    service.plan(Plan(epochs=40, steps=5, step_seconds=0.05))  # so that it is killed long before its end
    job = service.submit()
    wait_for(lambda: len(service.events(job, "checkpoint")) >= 4, "it has checkpoints")
    ray.holds_back = True  # what follows is to find the damage
    ray.signal(f"fasterseg-{job}-1", signal.SIGKILL)
    wait_for(lambda: service.job(job).epoch == 2, "another attempt begins")
    before, newest = [str(event["sha256"]) for event in service.events(job, "checkpoint")][-2:]

    damage(*(service.folder / "blobs" / name[:2] / name for name in (newest, before)))
    ray.release()
    service.succeeded(job)

    unreadable = [event["sha256"] for event in service.events(job, "checkpoint_unreadable")]
    assert unreadable == ([newest, before] if damage is swap else [newest]), "each damage is detected, and told"
    check(service)
