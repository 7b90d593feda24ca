"""A database whose writer is killed, and one that is locked."""

import contextlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.service import Service
from tests.serving import TOKEN


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
