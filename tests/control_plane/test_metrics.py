"""What Prometheus reads."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from services.client.schemas import FailureClass, JobKind, Reason
from services.storage.attempts import LEASE_SECONDS, lose_attempt
from services.storage.database import Database, database_now
from services.storage.jobs import request_pause, resume_job
from services.storage.tables import JobRow
from services.storage.worker_writes import fail, succeed
from tests.control_plane.builders import submitted
from tests.storage.builders import a_blob, a_job, a_started_worker, a_success, end_backoff, end_lease, work_for

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
def test_jobs_and_attempts_are_counted_by_what_became_of_them(api: TestClient):
    samples = read(api)

    jobs = {key[1:]: value for key, value in samples.items() if key[0] == "fasterseg_jobs"}
    assert len(jobs) == 25
    assert {kind_and_state: number for kind_and_state, number in jobs.items() if number} == {
        ("profile", "queued"): 1,
        ("search", "queued"): 1,
        ("profile", "running"): 1,
        ("profile", "failed"): 1,
    }
    assert samples["fasterseg_jobs_failed_total", "user_error"] == 1
    assert {key[1]: value for key, value in samples.items() if key[0] == "fasterseg_attempts_ended_total"} == {
        "succeeded": 0,
        "failed": 1,
        "cancelled": 0,
        "lost": 1,
    }
    assert {key[1]: value for key, value in samples.items() if key[0] == "fasterseg_attempts_failed_total"} == {
        "user_error": 1,
        "out_of_memory": 0,
        "infrastructure": 1,
        "parent_failed": 0,
    }
    assert samples["fasterseg_attempts_live",] == 1
    assert samples["fasterseg_events_total",] == 9
    assert samples["fasterseg_blob_bytes",] == samples["fasterseg_unnamed_blob_bytes",] > 0
    assert samples["fasterseg_latency_tables",] == 0


def test_only_what_can_run_waits(api: TestClient, database: Database):
    assert read(api)["fasterseg_longest_wait_seconds",] == 0

    job = a_job(database)
    a_job(database, JobKind.SEARCH, after=[job])
    _age(database, hours=2)
    assert read(api)["fasterseg_longest_wait_seconds",] > 7000

    with database.writing.begin() as session:
        request_pause(session, job)
    samples = read(api)
    assert (samples["fasterseg_longest_wait_seconds",], samples["fasterseg_jobs_paused",]) == (0, 1)

    with database.writing.begin() as session:
        resume_job(session, job)
    assert read(api)["fasterseg_longest_wait_seconds",] < 60


def test_a_worker_that_reports_nothing_is_silent(api: TestClient, database: Database):
    assert read(api)["fasterseg_longest_silence_seconds",] == 0

    a_job(database)
    worker = a_started_worker(database)
    assert 0 <= read(api)["fasterseg_longest_silence_seconds",] < 30

    with database.writing.begin() as session:
        end_lease(session, worker.submission_id)
    assert read(api)["fasterseg_longest_silence_seconds",] > LEASE_SECONDS


def test_a_child_waits_from_when_its_parent_has_succeeded(api: TestClient, database: Database):
    a_job(database, JobKind.SEARCH, after=[a_job(database)])
    _age(database, hours=2)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.PROFILE))

    assert 0 < read(api)["fasterseg_longest_wait_seconds",] < 60


def test_projects_tell_their_hours_and_limits(api: TestClient, database: Database):
    api.put("projects/maps", json={"max_hours": 5})
    a_job(database)
    with database.writing.begin() as session:
        work_for(session, a_started_worker(database), 2.0)

    samples = read(api)

    assert samples["fasterseg_project_used_hours", "default"] == pytest.approx(2.0, abs=0.01)
    assert samples["fasterseg_project_used_hours", "maps"] == 0
    limits = {key[1]: value for key, value in samples.items() if key[0] == "fasterseg_project_max_hours"}
    assert limits == {"maps": 5.0}


def _age(database: Database, hours: int) -> None:
    """Lets every job have been submitted this long ago."""
    with database.writing.begin() as session:
        session.execute(update(JobRow).values(runnable_at=database_now(session) - timedelta(hours=hours)))


def test_requests_are_timed_by_their_route(api: TestClient):
    for _ in range(2):
        api.get(f"jobs/{submitted(api, 'profile')}")
    api.get("jobs/aaaaaaaaaaaa")
    api.get("nowhere/at/all")

    counts = {key[1:]: n for key, n in read(api).items() if key[0] == "fasterseg_http_request_seconds_count"}

    assert counts["GET", "/jobs/{job_id}", "200"] == 2
    assert counts["GET", "/jobs/{job_id}", "404"] == 1
    assert counts["GET", "other", "404"] == 1
    assert not any("aaaaaaaaaaaa" in route for _, route, _ in counts)


def test_requests_that_fail_or_are_refused_before_a_route_are_timed(api: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.control_plane.routers.jobs.page_of_jobs", lambda *_, **__: 1 / 0)

    assert api.get("jobs").status_code == 500
    assert api.post("jobs", content=b"x" * 200_000).status_code == 413
    assert api.request("CHOSEN", "jobs").status_code == 405

    counts = {key[1:]: n for key, n in read(api).items() if key[0] == "fasterseg_http_request_seconds_count"}
    assert counts["GET", "/jobs", "500"] == 1
    assert counts["POST", "other", "413"] == 1
    assert not any(method == "CHOSEN" for method, _, _ in counts)


def test_the_process_tells_of_itself(api: TestClient):
    samples = read(api)

    assert samples["process_resident_memory_bytes",] > 0
