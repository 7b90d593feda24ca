"""Jobs over HTTP: list, show, cancel, events, logs."""

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from services.client.attempt_schemas import Heartbeat
from services.control_plane.logs import copy_logs
from services.control_plane.parts import Parts
from services.control_plane.ray_jobs import RayState
from services.storage.attempt_logs import uncopied_logs
from services.storage.attempts import lose_attempt, open_attempt
from services.storage.database import Database, database_now
from services.storage.jobs import claim_job, pause_where_limits_are_reached
from services.storage.tables import AttemptRow
from services.storage.worker_writes import acknowledge_stop, heartbeat
from tests.control_plane.builders import submitted
from tests.control_plane.fakes import FakeRay
from tests.storage.builders import a_progress, a_started_worker, end_backoff, pass_deadline, work_for


def test_jobs_are_listed_page_by_page(api: TestClient):
    jobs = [submitted(api, "profile") for _ in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        page = api.get("jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]

    assert seen == jobs[::-1]
    assert cursor is None


def test_jobs_are_filtered_by_state_and_kind(api: TestClient):
    profile = submitted(api, "profile")
    search = submitted(api, "search", after=(profile,))
    api.post(f"jobs/{profile}/cancel")

    assert [job["id"] for job in api.get("jobs", params={"state": "cancelled"}).json()["items"]] == [profile]
    assert [job["id"] for job in api.get("jobs", params={"kind": "search"}).json()["items"]] == [search]
    assert api.get("jobs", params={"state": "asleep"}).status_code == 422


def test_an_unknown_job_is_not_found(api: TestClient):
    for path in ("", "/events", "/logs"):
        assert api.get(f"jobs/aaaaaaaaaaaa{path}").status_code == 404
    assert api.post("jobs/aaaaaaaaaaaa/cancel").status_code == 404


def test_a_queued_job_is_cancelled_at_once_with_its_children(api: TestClient):
    profile = submitted(api, "profile")
    search = submitted(api, "search", after=(profile,))

    assert api.post(f"jobs/{profile}/cancel").json()["state"] == "cancelled"
    assert api.post(f"jobs/{profile}/cancel").status_code == 200
    child = api.get(f"jobs/{search}").json()
    assert (child["state"], child["reason"]["failure"]) == ("failed", "parent_failed")


def test_a_running_job_is_asked_to_stop(api: TestClient, database: Database):
    job = submitted(api, "profile")
    a_started_worker(database)

    cancelled = api.post(f"jobs/{job}/cancel").json()

    assert (cancelled["state"], cancelled["cancel_requested"]) == ("running", True)


def test_a_failed_job_cannot_be_cancelled(api: TestClient):
    profile = submitted(api, "profile")
    search = submitted(api, "search", after=(profile,))
    api.post(f"jobs/{profile}/cancel")

    assert api.post(f"jobs/{search}/cancel").status_code == 409


def test_a_job_is_paused_and_resumed(api: TestClient):
    job = submitted(api, "profile")

    assert api.post(f"jobs/{job}/pause").json()["paused"] is True
    assert api.get(f"jobs/{job}").json()["state"] == "queued"
    assert api.post(f"jobs/{job}/resume").json()["paused"] is False
    api.post(f"jobs/{job}/cancel")
    assert api.post(f"jobs/{job}/pause").status_code == 409
    assert api.post("jobs/aaaaaaaaaaaa/resume").status_code == 404


def test_the_dispatcher_is_told_of_what_may_start(api: TestClient, parts: Parts):
    job = submitted(api, "profile")
    assert parts.runnable.is_set()

    parts.runnable.clear()
    api.post(f"jobs/{job}/pause")
    assert not parts.runnable.is_set()
    api.post(f"jobs/{job}/resume")
    assert parts.runnable.is_set()


def test_a_job_that_has_not_changed_is_not_sent_again(api: TestClient, database: Database):
    job = submitted(api, "profile")
    tag = api.get(f"jobs/{job}").headers["etag"]

    same = api.get(f"jobs/{job}", headers={"If-None-Match": f'"other", W/{tag}'})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    worker = a_started_worker(database)
    started = api.get(f"jobs/{job}", headers={"If-None-Match": tag})
    assert started.status_code == 200
    with database.writing.begin() as session:
        heartbeat(session, worker.submission_id, worker.token, Heartbeat(progress=a_progress()))
    assert api.get(f"jobs/{job}", headers={"If-None-Match": started.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_an_action_on_a_job_that_has_changed_is_refused(api: TestClient, action: str):
    job = submitted(api, "profile")
    read = {"If-Match": api.get(f"jobs/{job}").headers["etag"]}
    now = api.post(f"jobs/{job}/pause", headers=read)
    before = api.get(f"jobs/{job}/events").json()

    refused = api.post(f"jobs/{job}/{action}", headers=read)

    assert (now.status_code, refused.status_code) == (200, 412)
    assert refused.headers["content-type"] == "application/problem+json"
    assert api.get(f"jobs/{job}/events").json() == before
    assert api.post(f"jobs/{job}/{action}", headers={"If-Match": api.get(f"jobs/{job}").headers["etag"]}).is_success


def test_an_action_may_ask_for_any_job_that_exists(api: TestClient):
    job = submitted(api, "profile")

    assert api.post(f"jobs/{job}/pause", headers={"If-Match": "*"}).status_code == 200


def test_a_submission_has_a_priority(api: TestClient):
    body = {"kind": "profile", "preset": "quick", "priority": 3}

    assert api.post("jobs", json=body).json()["priority"] == 3
    assert api.post("jobs", json=body | {"priority": 101}).json()["errors"][0]["field"] == "priority"


def test_a_submission_has_limits(api: TestClient):
    body = {"kind": "profile", "preset": "quick", "max_hours": 10, "deadline": "2999-01-01T08:00+02:00"}

    job = api.post("jobs", json=body).json()

    assert (job["max_hours"], job["deadline"]) == (10, "2999-01-01T06:00:00Z")
    assert (job["used_hours"], job["limit_reached"]) == (0, None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("deadline", "2026-01-01T00:00:00Z", "has passed: name a later one"),
        ("deadline", "2999-01-01T00:00:00", "Input should have timezone info"),
        ("deadline", 32472144000, "write date, time and zone, as in 2026-12-01T08:00:00Z"),
        ("deadline", "tomorrow", "Input should be a valid datetime"),
        ("deadline", "9999-12-31T23:59:59-12:00", "Input should be less than"),
        ("deadline", "0001-01-01T00:00:00+12:00", "Input should be greater than"),
        ("max_hours", 0, "Input should be greater than 0"),
        ("max_hours", 1e9, "Input should be less than"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_its_name(api: TestClient, field: str, value: object, message: str):
    response = api.post("jobs", json={"kind": "profile", "preset": "quick", field: value})

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(
    ("field", "value", "status"), [("deadline", "2026-01-01T00:00Z", 409), ("max_hours", -1, 422), ("hours", 1, 422)]
)
def test_a_job_is_not_resumed_with_a_limit_that_cannot_be(api: TestClient, field: str, value: object, status: int):
    response = api.post(f"jobs/{submitted(api, 'profile')}/resume", json={field: value})

    assert (response.status_code, [error["field"] for error in response.json()["errors"]]) == (status, [field])


def test_a_submission_that_is_repeated_after_its_deadline_is_the_job_of_before(api: TestClient, database: Database):
    body = {"kind": "profile", "preset": "quick", "deadline": "2999-01-01T08:00Z"}
    first = api.post("jobs", json=body, headers={"Idempotency-Key": "k"}).json()
    with database.writing.begin() as session:
        pass_deadline(session, first["id"])

    assert api.post("jobs", json=body, headers={"Idempotency-Key": "k"}).json()["id"] == first["id"]


def test_a_job_past_a_limit_is_resumed_by_raising_it_alone(api: TestClient, database: Database):
    job = submitted(api, "profile", max_hours=1)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        work_for(session, worker, hours=1.5)
        pause_where_limits_are_reached(session)
        acknowledge_stop(session, worker.submission_id, worker.token)

    paused = api.get(f"jobs/{job}").json()
    assert (paused["state"], paused["paused"], round(paused["used_hours"], 1)) == ("queued", True, 1.5)
    assert re.match(r"max_hours: 1\.5\d* of 1 were used: resume it with more", paused["limit_reached"])
    refused = api.post(f"jobs/{job}/resume")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "max_hours")
    assert api.post(f"jobs/{job}/resume", json={"deadline": "2999-01-01T08:00Z"}).status_code == 409
    resumed = api.post(f"jobs/{job}/resume", json={"max_hours": 2}).json()
    assert (resumed["paused"], resumed["max_hours"], resumed["limit_reached"]) == (False, 2, None)
    assert resumed["deadline"] is None


def test_events_are_resumable(api: TestClient, database: Database):
    job = submitted(api, "profile")
    a_started_worker(database)

    events = api.get(f"jobs/{job}/events").json()["items"]

    assert [(event["sequence"], event["kind"], event["epoch"]) for event in events] == [
        (1, "queued", 0),
        (2, "started", 1),
    ]
    assert api.get(f"jobs/{job}/events", params={"after": 1}).json()["items"] == events[1:]


def test_a_job_without_an_attempt_has_printed_nothing(api: TestClient):
    job = submitted(api, "profile")

    response = api.get(f"jobs/{job}/logs")

    assert response.text == ""
    assert response.headers["content-type"].startswith("text/plain")


def test_logs_of_a_running_job_are_rays(api: TestClient, database: Database, ray: FakeRay):
    job = submitted(api, "profile")
    worker = a_started_worker(database)
    ray.say(worker.submission_id, RayState.RUNNING)
    ray.printed[worker.submission_id] = "epoch 1\n"

    assert api.get(f"jobs/{job}/logs").text == "epoch 1\n"


def copy_all_logs(parts: Parts, ray: FakeRay) -> None:
    """Of attempts that began a minute ago."""
    with parts.database.writing.begin() as session:
        session.execute(update(AttemptRow).values(created_at=database_now(session) - timedelta(minutes=1)))
    with parts.database.reading() as session:
        logs = uncopied_logs(session)
    for log in logs:
        copy_logs(parts.database, parts.store, ray, log)


def test_logs_outlive_ray(api: TestClient, parts: Parts, ray: FakeRay):
    job = submitted(api, "profile")
    worker = a_started_worker(parts.database)
    ray.printed[worker.submission_id] = "the end\n"
    with parts.database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed")
    copy_all_logs(parts, ray)
    ray.is_away = True

    assert api.get(f"jobs/{job}/logs").text == "the end\n"


@pytest.mark.parametrize("is_away", [True, False])  # or another Ray has taken its place
def test_what_was_copied_of_a_running_job_outlives_ray(api: TestClient, parts: Parts, ray: FakeRay, is_away: bool):
    job = submitted(api, "profile")
    worker = a_started_worker(parts.database)
    ray.printed[worker.submission_id] = "epoch 1\n"
    copy_all_logs(parts, ray)
    ray.printed.clear()
    ray.is_away = is_away

    assert api.get(f"jobs/{job}/logs").text == "epoch 1\n"


def test_a_log_that_was_lost_with_ray_is_gone(api: TestClient, database: Database):
    job = submitted(api, "profile")
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed")

    response = api.get(f"jobs/{job}/logs")

    assert response.status_code == 410
    detail = f"Ray has lost what attempt 1 of job {job} printed, before it was copied"
    assert response.json()["detail"] == detail


def test_an_attempt_that_ray_never_had_has_printed_nothing(api: TestClient, database: Database):
    job = submitted(api, "profile")
    with database.writing.begin() as session:
        claimed = claim_job(session)
        assert claimed is not None
        dispatch = open_attempt(session, claimed, "test")
        lose_attempt(session, dispatch.submission_id, "not started")

    assert (api.get(f"jobs/{job}/logs").text, api.get(f"jobs/{job}/logs").status_code) == ("", 200)


@pytest.mark.parametrize("withheld", [True, False])  # or the file is gone, of which Ray says that it is empty
def test_what_was_copied_is_read_where_ray_has_the_job_and_not_its_log(
    api: TestClient, parts: Parts, ray: FakeRay, withheld: bool
):
    job = submitted(api, "profile")
    worker = a_started_worker(parts.database)
    ray.say(worker.submission_id, RayState.RUNNING)
    ray.printed[worker.submission_id] = "epoch 1\n"
    copy_all_logs(parts, ray)
    ray.printed.clear()
    ray.withheld = {worker.submission_id} if withheld else set()

    assert api.get(f"jobs/{job}/logs").text == "epoch 1\n"


def test_logs_of_an_earlier_attempt_are_asked_for_by_its_number(api: TestClient, database: Database, ray: FakeRay):
    job = submitted(api, "profile")
    for printed in ("killed\n", "the end\n"):
        worker = a_started_worker(database)
        ray.say(worker.submission_id, RayState.FAILED)
        ray.printed[worker.submission_id] = printed
        with database.writing.begin() as session:
            lose_attempt(session, worker.submission_id, "killed")
            end_backoff(session)

    texts = [api.get(f"jobs/{job}/logs", params={"attempt": epoch}).text for epoch in (1, 2)]
    missing = api.get(f"jobs/{job}/logs", params={"attempt": 3})

    assert texts == ["killed\n", "the end\n"]
    assert (missing.status_code, missing.json()["detail"]) == (404, f"job {job} has had no attempt 3")


def test_logs_that_only_ray_has_are_unavailable_while_it_is_away(api: TestClient, database: Database, ray: FakeRay):
    job = submitted(api, "profile")
    a_started_worker(database)
    ray.is_away = True

    response = api.get(f"jobs/{job}/logs")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
