"""A database that is killed, away for longer than a lease, or locked."""

import contextlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from services.client.schemas import JobState
from services.storage.tables import AttemptRow
from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import Service
from tests.postgresql import Server
from tests.serving import TOKEN


def refusals(service: Service, job: str) -> set[tuple[int, str | None]]:
    """The statuses, and the Retry-After, with which a user's requests are answered now."""
    requests = [
        ("GET", "/api/v1/jobs", None),
        ("GET", f"/api/v1/jobs/{job}", None),
        ("GET", f"/api/v1/jobs/{job}/events", None),
        ("POST", f"/api/v1/jobs/{job}/pause", None),
        ("POST", "/api/v1/jobs", {"kind": "profile", "preset": "quick"}),
        ("GET", "/metrics", None),
    ]
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        answers = [http.request(method, path, json=body) for method, path, body in requests]
    return {(answer.status_code, answer.headers.get("Retry-After")) for answer in answers}


@pytest.mark.row(8, "PostgreSQL killed under load, away for longer than a lease: acknowledged jobs there, no 500")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_killed_database_loses_no_acknowledged_job_and_no_lease(
    make_service: MakeService, postgres: Server, record_property
):
    kills = 4
    periods = replace(QUICK, lease=12)  # who was told to come again does so after 5 s
    service = make_service(periods, DATABASE_URL=postgres.url)
    service.start()
    service.plan(Plan(epochs=10_000, steps=5, step_seconds=0.1))
    long = service.submit()
    service.wait_for_steps(long, 5)
    service.plan(Plan(epochs=1, steps=3))
    with ThreadPoolExecutor(4) as users:
        for kill in range(kills):
            sent = [users.submit(service.submit, key=f"{kill}-{number}") for number in range(6)]
            sent[0].result()  # the others are on their way
            with postgres.killed():
                before = len(service.steps(long))
                assert refusals(service, long) == {(503, "5")}
                if kill == 0:
                    time.sleep(1.5 * service.periods.lease)  # the outage itself
                    service.wait_for_steps(long, before + 1)
            started_at = time.monotonic()
            service.job(long)
            record_property("seconds until it answers again", time.monotonic() - started_at)
            for job in sent:
                job.result()
    for job in service.acknowledged[1:]:
        service.succeeded(job, 600)
    assert (service.job(long).state, service.job(long).epoch) == (JobState.RUNNING, 1), "no lease is lost for an outage"
    with service.client() as client:
        client.cancel(long)
    assert service.finished(long).state is JobState.CANCELLED
    for job in service.acknowledged:
        steps = [step for _, step in service.steps(job)]
        assert len(set(steps)) == len(steps), "no step is taken twice"
    record_property("runs", kills)
    record_property("acknowledged jobs", len(service.acknowledged))
    record_property("attempts at a job", max(service.rows(AttemptRow.epoch)))
    check(service)


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
