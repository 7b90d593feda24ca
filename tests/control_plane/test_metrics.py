"""What Prometheus reads."""

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from services.client.schemas import FailureClass, JobKind, Reason
from services.storage.attempts import lose_attempt
from services.storage.database import Database
from services.storage.jobs import request_pause
from services.storage.worker_writes import fail
from tests.control_plane.test_submission import submitted
from tests.storage.builders import a_blob, a_job, a_started_worker, end_backoff

Samples = dict[tuple[str, ...], float]


def read(api: TestClient) -> Samples:
    """Each sample under its name and the values of its labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(api.get("http://test/metrics").text)
        for sample in family.samples
    }


@pytest.fixture
def busy(database: Database) -> None:
    """A job that was lost and runs again, another that failed, one that waits for the first, and one that can run."""
    running = a_job(database)
    lost = a_started_worker(database)
    a_job(database)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        lose_attempt(session, lost.submission_id, "killed")
        fail(session, worker.submission_id, worker.token, Reason(failure=FailureClass.USER_ERROR, message="wrong"))
        a_blob(session)
        end_backoff(session)
    a_started_worker(database)
    a_job(database, JobKind.SEARCH, after=[running])
    a_job(database)


@pytest.mark.usefixtures("busy")
def test_jobs_and_attempts_are_counted_by_state_and_outcome(api: TestClient):
    samples = read(api)

    assert {key[1]: value for key, value in samples.items() if key[0] == "fasterseg_jobs"} == {
        "queued": 2,
        "running": 1,
        "succeeded": 0,
        "failed": 1,
        "cancelled": 0,
    }
    assert {key[1]: value for key, value in samples.items() if key[0] == "fasterseg_attempts_ended_total"} == {
        "succeeded": 0,
        "failed": 1,
        "cancelled": 0,
        "lost": 1,
    }
    assert samples["fasterseg_attempts_live",] == 1
    assert samples["fasterseg_blob_bytes",] == samples["fasterseg_unnamed_blob_bytes",] > 0
    assert samples["fasterseg_latency_tables",] == 0


def test_only_what_can_run_waits(api: TestClient, database: Database):
    assert read(api)["fasterseg_longest_wait_seconds",] == 0

    job = a_job(database)
    a_job(database, JobKind.SEARCH, after=[job])
    assert read(api)["fasterseg_longest_wait_seconds",] > 0

    with database.writing.begin() as session:
        request_pause(session, job)
    assert read(api)["fasterseg_longest_wait_seconds",] == 0


def test_requests_are_timed_by_their_route(api: TestClient):
    for _ in range(2):
        api.get(f"jobs/{submitted(api, 'profile')}")
    api.get("jobs/aaaaaaaaaaaa")
    api.get("nowhere/at/all")

    counts = {key[1:]: n for key, n in read(api).items() if key[0] == "fasterseg_http_request_seconds_count"}

    assert counts["GET", "/jobs/{job_id}", "200"] == 2
    assert counts["GET", "/jobs/{job_id}", "404"] == 1
    assert counts["GET", "unmatched", "404"] == 1
    assert not any("aaaaaaaaaaaa" in route for _, route, _ in counts)


def test_the_process_tells_of_itself(api: TestClient):
    samples = read(api)

    assert samples["process_resident_memory_bytes",] > 0
