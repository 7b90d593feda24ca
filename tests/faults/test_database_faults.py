"""A database that dies under load, is away for longer than a lease, or is locked."""

import contextlib
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import TOKEN, Service, eventually
from tests.postgresql import Server


def submissions(service: Service, count: int, prefix: str) -> None:
    """As many jobs, sent by four users at a time, each acknowledged in the end."""
    with ThreadPoolExecutor(4) as users:
        list(users.map(lambda number: service.submit(key=f"{prefix}-{number}"), range(count)))


@pytest.mark.row(8, "PostgreSQL killed under load and away for longer than a lease: acknowledged rows all there")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_killed_database_loses_no_acknowledged_job_and_no_lease(
    make_service: MakeService, postgres: Server, record_property
):
    kills = 5
    # A worker that was told to come again does so after 5 s: within a lease, as with the service's own.
    service = make_service(database_url=postgres.url, periods=replace(QUICK, lease=12))
    service.start()
    service.plan(Plan(epochs=200, steps=5, step_seconds=0.1))
    long = service.submit()
    service.wait_for_steps(long, 5)
    service.plan(Plan(epochs=1, steps=1))
    for kill in range(kills):
        load = threading.Thread(target=submissions, args=(service, 5, f"load-{kill}"))
        load.start()
        before = len(service.steps(long))
        postgres.kill()
        if kill == 0:
            time.sleep(1.5 * service.periods.lease)  # the outage itself
            assert len(service.steps(long)) > before, "a job that runs goes on"
        answer = httpx.get(f"{service.planes[0].url}/api/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5")
        postgres.start()
        started_at = time.monotonic()
        eventually(lambda: service.job(long))
        record_property("seconds until it answers again", time.monotonic() - started_at)
        load.join()
    for job in service.acknowledged:
        if job != long:
            service.finished(job)
    assert (service.job(long).epoch, service.job(long).state) == (1, "running"), "no lease is reaped for an outage"
    record_property("runs", kills)
    check(service)


@pytest.mark.row(9, "SQLite: 8 writers, SIGKILL while writing, locked for 20 s: integrity_check ok, 503 and no 500")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_killed_writer_leaves_an_intact_file(service: Service, record_property):
    kills = 5
    plane = service.start()
    service.plan(Plan(epochs=1, steps=1))
    with plane.kept_up(), ThreadPoolExecutor(8) as writers:
        for kill in range(kills):
            sent = [writers.submit(service.submit, key=f"{kill}-{number}") for number in range(8)]
            sent[0].result()
            assert plane.process is not None
            plane.process.kill()
            for job in sent:
                job.result()
        for job in service.acknowledged:
            service.finished(job)
    with contextlib.closing(sqlite3.connect(service.folder / "fasterseg.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    record_property("runs", kills)
    check(service)


@pytest.mark.fault
@pytest.mark.row(9, "SQLite: 8 writers, SIGKILL while writing, locked for 20 s: integrity_check ok, 503 and no 500")
def test_a_locked_file_is_answered_by_503_and_a_job_that_runs_goes_on(service: Service, record_property):
    plane = service.start()
    job = service.submit()
    with contextlib.closing(sqlite3.connect(service.folder / "fasterseg.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started_at = time.monotonic()
        answer = httpx.post(
            f"{plane.url}/api/v1/jobs/{job}/pause", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
        )
        record_property("seconds to 503", time.monotonic() - started_at)
        other.execute("ROLLBACK")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5")
    service.succeeded(job)
    check(service)
