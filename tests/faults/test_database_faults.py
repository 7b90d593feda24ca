"""A database that is killed, away for longer than a lease, or locked."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import text

from services.client.schemas import JobState
from services.storage.database import migrate, open_database
from services.storage.jobs import locked_job
from services.storage.tables import AttemptRow
from tests.faults.conftest import MakeService
from tests.faults.control_plane import QUICK
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import Service
from tests.faults.tcp_proxy import NONE, Fault, TcpProxy, tcp_proxy
from tests.postgresql import Server
from tests.serving import TOKEN
from tests.storage.builders import a_job


@pytest.fixture
def proxy(postgres: Server) -> Iterator[TcpProxy]:
    with tcp_proxy(f"127.0.0.1:{postgres.port}") as proxy:
        yield proxy


def behind(proxy: TcpProxy, postgres: Server) -> str:
    """The URL of the database through a proxy."""
    return postgres.url.replace(f"127.0.0.1:{postgres.port}", proxy.address)


def answers(service: Service, job: str) -> list[httpx.Response]:
    """Those to a user's requests now."""
    requests = [
        ("GET", "/api/v1/jobs", None),
        ("GET", f"/api/v1/jobs/{job}", None),
        ("GET", f"/api/v1/jobs/{job}/events", None),
        ("POST", f"/api/v1/jobs/{job}/pause", None),
        ("POST", "/api/v1/jobs", {"kind": "profile", "preset": "quick"}),
        ("GET", "/metrics", None),
    ]
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        return [http.request(method, path, json=body) for method, path, body in requests]


def how(answers: list[httpx.Response]) -> set[tuple[int, str | None]]:
    """The statuses, and the Retry-After, of answers."""
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
                assert how(answers(service, long)) == {(503, "5")}
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


@pytest.mark.row(8, "PostgreSQL behind a network that drops every packet: 503, and everything goes on afterwards")
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_database_that_cannot_be_reached_is_answered_by_503(
    make_service: MakeService, postgres: Server, proxy: TcpProxy, record_property
):
    periods = replace(QUICK, lease=12)
    service = make_service(periods, DATABASE_URL=behind(proxy, postgres))
    service.start()
    service.plan(Plan(epochs=10_000, steps=5, step_seconds=0.1))
    long = service.submit()
    service.wait_for_steps(long, 5)

    proxy.fault = Fault(drops=True)
    refused = answers(service, long)
    service.wait_for_steps(long, len(service.steps(long)) + 1)
    proxy.fault = NONE

    assert how(refused) == {(503, "5")}
    record_property("seconds to 503", max(answer.elapsed.total_seconds() for answer in refused))
    started_at = time.monotonic()
    service.job(long)
    record_property("seconds until it answers again", time.monotonic() - started_at)
    service.plan(Plan(epochs=1, steps=3))
    service.succeeded(service.submit(), 300)
    assert (service.job(long).state, service.job(long).epoch) == (JobState.RUNNING, 1), "no lease is lost for an outage"
    with service.client() as client:
        client.cancel(long)
    assert service.finished(long).state is JobState.CANCELLED
    check(service)


@pytest.mark.fault
def test_what_was_locked_by_who_cannot_be_reached_is_free_again(postgres: Server, proxy: TcpProxy):
    gone, others = open_database(behind(proxy, postgres)), open_database(postgres.url)
    migrate(others)
    job = a_job(others)
    with gone.writing() as session:
        locked_job(session, job)
        proxy.fault = Fault(drops=True)
        with others.writing.begin() as waiting:
            waiting.execute(text("SET LOCAL lock_timeout = '100s'"))
            locked_job(waiting, job)
        session.invalidate()
    for database in (gone, others):
        database.engine.dispose()


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
