"""The life of an attempt over HTTP, as a worker lives it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi.testclient import TestClient

from services.client.schemas import JobKind, JsonObject
from services.control_plane.app import create_app
from services.control_plane.dependencies import MOST_AT_PART
from services.control_plane.parts import Parts
from services.storage.attempts import lose_attempt, open_attempt
from services.storage.database import Database
from services.storage.jobs import claim_job
from tests.control_plane.builders import as_worker, submitted, upload
from tests.storage.builders import (
    a_checkpoint,
    a_progress,
    a_started_worker,
    a_success,
    a_usage,
    end_backoff,
)


def test_bodies_that_do_not_arrive_keep_no_other_from_the_store(api: TestClient, parts: Parts, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)
    asked_for = asyncio.Semaphore(0)

    async def unfinished() -> AsyncIterator[bytes]:
        yield b"a part"
        asked_for.release()
        await asyncio.Event().wait()

    async def put_beside_them() -> int:
        transport = httpx.ASGITransport(create_app(parts))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test/api/v1/", headers=as_worker(worker)
        ) as http:
            paths = [f"blobs/{number:064}" for number in range(MOST_AT_PART)]
            sending = [asyncio.create_task(http.put(path, content=unfinished())) for path in paths]
            for _ in paths:
                await asked_for.acquire()
            answer = await http.put(f"blobs/{hashlib.sha256(b'whole').hexdigest()}", content=b"whole")
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
        return answer.status_code

    assert asyncio.run(asyncio.wait_for(put_beside_them(), timeout=60)) == 204


def test_a_ticket_is_redeemed_once(api: TestClient, database: Database):
    submitted(api, "profile")
    with database.writing.begin() as session:
        job = claim_job(session)
        assert job is not None
        dispatch = open_attempt(session, job, "test")
    path, body = f"attempts/{dispatch.submission_id}/redeem", {"ticket": dispatch.ticket}

    first, second = api.post(path, json=body), api.post(path, json=body)

    assert first.status_code == 200
    assert first.json()["spec"]["dataset"] == "camvid"
    assert second.status_code == 409
    assert second.headers["content-type"] == "application/problem+json"


def test_a_wrong_ticket_is_not_echoed(api: TestClient, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)

    response = api.post(f"attempts/{worker.submission_id}/redeem", json={"ticket": "a secret of somebody"})

    assert response.status_code == 401
    assert "secret" not in response.text


def test_a_worker_reports_until_its_job_has_succeeded(api: TestClient, parts: Parts, database: Database):
    job = submitted(api, "profile")
    search = submitted(api, "search", after=(job,))
    worker = a_started_worker(database)
    attempt, headers = f"attempts/{worker.submission_id}", as_worker(worker)
    progress = a_progress().model_dump()
    upload(api, worker, b"state")

    beat = api.post(f"{attempt}/heartbeat", json={"progress": progress}, headers=headers)
    events = {"items": [{"worker_sequence": 0, "kind": "epoch", "data": {"loss": 1.5}}]}
    told = api.post(f"{attempt}/events", json=events, headers=headers)
    kept = api.post(f"{attempt}/checkpoint", json=a_checkpoint(b"state").model_dump(), headers=headers)
    parts.runnable.clear()
    success = a_success(JobKind.PROFILE).model_dump(mode="json")
    done = api.post(f"{attempt}/succeed", json=success, headers=headers)

    assert parts.runnable.is_set()
    assert [reply.json() for reply in (beat, told, kept)] == [{"stop": False}] * 3
    assert done.status_code == 204
    shown = api.get(f"jobs/{job}").json()
    assert (shown["state"], shown["progress"]["epoch"]) == ("succeeded", 1)
    assert api.get(f"latency-tables/{shown['latency_table']}").json() == success["latency_table"]
    with database.writing.begin() as session:
        runnable = claim_job(session)
        assert runnable is not None
        assert runnable.id == search


def test_what_an_attempt_took_is_checked_like_everything_else(api: TestClient, database: Database):
    job = submitted(api, "profile")
    worker = a_started_worker(database)
    path, usage = f"attempts/{worker.submission_id}/events", a_usage().model_dump(mode="json")

    def told(data: JsonObject) -> int:
        items = [{"worker_sequence": 0, "kind": "usage", "data": data}]
        return api.post(path, json={"items": items}, headers=as_worker(worker)).status_code

    assert told({**usage, "seconds": -1.0}) == 422
    assert told(usage) == 200
    assert api.get(f"jobs/{job}/events").json()["items"][-1]["data"] == usage


def test_a_worker_that_lost_its_lease_is_told_so(api: TestClient, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "silent")
    attempt, headers = f"attempts/{worker.submission_id}", as_worker(worker)

    replies = [
        api.post(f"{attempt}/heartbeat", json={}, headers=headers),
        api.post(f"{attempt}/events", json={"items": []}, headers=headers),
        api.post(f"{attempt}/succeed", json=a_success(JobKind.PROFILE).model_dump(mode="json"), headers=headers),
        api.post(f"{attempt}/stopped", headers=headers),
        api.put(f"blobs/{hashlib.sha256(b'').hexdigest()}", content=b"", headers=headers),
    ]

    assert [reply.status_code for reply in replies] == [409] * 5
    assert {reply.json()["title"] for reply in replies} == {"Lease lost"}


def test_the_next_attempt_resumes_from_the_checkpoint(api: TestClient, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)
    upload(api, worker, b"state")
    checkpoint = a_checkpoint(b"state").model_dump()
    api.post(f"attempts/{worker.submission_id}/checkpoint", json=checkpoint, headers=as_worker(worker))
    failure = {"reason": {"failure": "infrastructure", "message": "preempted"}}
    api.post(f"attempts/{worker.submission_id}/fail", json=failure, headers=as_worker(worker))
    with database.writing.begin() as session:
        end_backoff(session)

    successor = a_started_worker(database)

    assert successor.assignment.checkpoints == [a_checkpoint(b"state")]
    assert api.get(f"artifacts/{a_checkpoint(b'state').sha256}").content == b"state"


@pytest.mark.parametrize(
    ("failure", "state"), [("user_error", "failed"), ("out_of_memory", "queued"), ("infrastructure", "queued")]
)
def test_a_failure_is_retried_by_its_class(api: TestClient, database: Database, failure: str, state: str):
    job = submitted(api, "profile")
    worker = a_started_worker(database)
    reason = {"failure": failure, "message": "because"}

    reply = api.post(f"attempts/{worker.submission_id}/fail", json={"reason": reason}, headers=as_worker(worker))

    assert reply.status_code == 204
    shown = api.get(f"jobs/{job}").json()
    assert shown["state"] == state
    assert shown["reason"] == (reason if state == "failed" else None)


def test_a_worker_acknowledges_a_cancellation(api: TestClient, database: Database):
    job = submitted(api, "profile")
    worker = a_started_worker(database)
    attempt, headers = f"attempts/{worker.submission_id}", as_worker(worker)
    api.post(f"jobs/{job}/cancel")

    assert api.post(f"{attempt}/heartbeat", json={}, headers=headers).json() == {"stop": True}
    assert api.post(f"{attempt}/stopped", headers=headers).status_code == 204
    assert api.get(f"jobs/{job}").json()["state"] == "cancelled"


def test_a_malformed_table_is_refused_by_its_row(api: TestClient, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)
    table = a_success(JobKind.PROFILE).model_dump(mode="json")["latency_table"]
    key = next(iter(table["rows"]))
    table["rows"][key]["milliseconds"] = -1

    body = {"result": {}, "latency_table": table}
    response = api.post(f"attempts/{worker.submission_id}/succeed", json=body, headers=as_worker(worker))

    assert response.status_code == 422
    assert key in response.json()["detail"]


def test_a_body_of_another_digest_is_refused(api: TestClient, database: Database):
    submitted(api, "profile")
    worker = a_started_worker(database)

    response = api.put(f"blobs/{'0' * 64}", content=b"other", headers=as_worker(worker))

    assert response.status_code == 422
    assert api.get(f"artifacts/{'0' * 64}").status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dGVzdA=="}])
def test_blobs_need_the_token_of_an_attempt(api: TestClient, headers: dict[str, str]):
    response = api.put(f"blobs/{hashlib.sha256(b'').hexdigest()}", content=b"", headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
