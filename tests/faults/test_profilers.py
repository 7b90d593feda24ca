"""Profilers that are killed, that meet on one device, and tables with rows that nobody measured."""

import json
import signal
from dataclasses import asdict

import httpx
import pytest

from services.client.schemas import JobState
from services.storage.tables import LatencyTableRow
from tests.faults.conftest import MakeService
from tests.faults.control_plane import Periods
from tests.faults.invariants import check
from tests.faults.measuring_worker import HANG, measure, timed
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for
from tests.serving import TOKEN
from tests.storage.builders import a_latency_table_document
from tests.workers.logging_runner import BATCH, CONFIG, ROWS

ROW_22 = pytest.mark.row(22, "a profiler killed, two for a device, rows NaN or negative: rows stay, one waits, refused")
UNMEASURED = ("NaN", "Infinity", "-Infinity", "1e999", "-1.0", "null", "true", '"1.0"')
WAITING = "waiting for another measurement"
PATIENCE_SECONDS = 300.0  # each worker imports torch


def submit_table(service: Service) -> str:
    """The id of a job that measures the table of CONFIG."""
    names = ("space", "resolution", "dataset", "passes", "samples", "random_networks")
    spec = {name: asdict(CONFIG)[name] for name in names} | {"random_networks": 0}
    with service.client() as client:
        job = client.submit("profile", json.loads(json.dumps(spec)), preset="quick")
    service.acknowledged.append(job.id)
    return job.id


def phase_of(service: Service, job: str) -> str | None:
    progress = service.job(job).progress
    return progress and progress.phase


@pytest.mark.fault
@pytest.mark.timeout(900)
@ROW_22
def test_a_killed_profiler_keeps_its_rows_and_gives_the_device_to_the_one_that_waits(
    make_service: MakeService, ray: RayStandIn, record_property
):
    service = make_service(Periods(first_backoff=0.1))
    ray.work = measure
    service.start()
    (service.folder / HANG).touch()
    first = submit_table(service)
    wait_for(
        lambda: len(timed(service.folder, first, 1)) == BATCH + 7, "the first is in its second batch", PATIENCE_SECONDS
    )
    wait_for(lambda: len(service.events(first, "checkpoint")) == 1, "its first batch is kept")
    (service.folder / HANG).unlink()

    second = submit_table(service)
    wait_for(lambda: phase_of(service, second) == WAITING, "the second waits", PATIENCE_SECONDS)
    assert timed(service.folder, second, 1) == []
    ray.signal(f"fasterseg-{first}-1", signal.SIGKILL)
    record_property(
        "seconds to the device of a killed profiler",
        wait_for(lambda: timed(service.folder, second, 1) != [], "the second measures", PATIENCE_SECONDS),
    )

    tables = []
    for job in (first, second):
        done = service.finished(job, PATIENCE_SECONDS)
        assert done.state is JobState.SUCCEEDED, done.reason
        with service.client() as client:
            document = client.latency_table(str(done.latency_table))
        tables.append({key: row["milliseconds"] for key, row in document["rows"].items()})
    kept = timed(service.folder, first, 1)[:BATCH]
    again = timed(service.folder, first, 2)
    assert sorted(kept + again) == sorted(timed(service.folder, second, 1)), "each row once"
    assert len(kept + again) == len(ROWS)
    assert tables[0] == pytest.approx(tables[1]), "the table is that of the undisturbed one"
    record_property("rows measured again", len(set(kept) & set(again)))
    check(service)


@ROW_22
def test_a_table_with_a_row_that_nobody_measured_is_refused(service: Service, record_property):
    document = a_latency_table_document()
    key = next(iter(document["rows"]))
    document["rows"][key]["milliseconds"] = "HERE"
    body = json.dumps({"document": document})
    plane = service.start()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    for value in UNMEASURED:
        content = body.replace('"HERE"', value)
        answer = httpx.post(f"{plane.url}/api/v1/latency-tables", content=content, headers=headers, timeout=60)
        assert (value, answer.status_code) == (value, 422)

    assert service.rows(LatencyTableRow.id) == []
    record_property("runs", len(UNMEASURED))
    check(service)
