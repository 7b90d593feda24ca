"""A job's history as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from fastapi.sse import ServerSentEvent
from fastapi.testclient import TestClient

from services.control_plane.event_stream import event_stream
from services.storage.attempts import live_attempts, lose_attempt
from services.storage.database import Database
from services.storage.jobs import request_cancel
from tests.control_plane.conftest import FIRST_TOKEN
from tests.control_plane.test_submission import submitted
from tests.storage.builders import a_job, a_started_worker


def sequences(body: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in body.splitlines() if line.startswith("id: ")]


@pytest.fixture
def over(api: TestClient) -> str:
    """A job that was cancelled while it waited."""
    job = submitted(api, "profile")
    api.post(f"jobs/{job}/cancel")
    return job


def test_a_job_that_is_over_gives_its_history_and_ends(api: TestClient, over: str):
    response = api.get(f"jobs/{over}/events/stream")

    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line[:6] == "data: "]
    assert events == api.get(f"jobs/{over}/events").json()["items"]
    assert [line for line in response.text.splitlines() if line[:7] == "event: "] == [
        "event: queued",
        "event: cancel_requested",
        "event: cancelled",
    ]
    assert sequences(response.text) == [1, 2, 3]


def test_a_reader_goes_on_after_the_event_that_it_names(api: TestClient, over: str):
    stream = f"jobs/{over}/events/stream"

    assert sequences(api.get(stream, params={"after": 2}).text) == [3]
    assert sequences(api.get(stream, headers={"Last-Event-ID": "1"}).text) == [2, 3]
    assert sequences(api.get(stream, params={"after": 2}, headers={"Last-Event-ID": "0"}).text) == [1, 2, 3]
    assert sequences(api.get(stream, params={"after": 3}).text) == []


def test_what_cannot_be_streamed_is_refused_before_a_stream_begins(api: TestClient, over: str):
    missing = api.get("jobs/aaaaaaaaaaaa/events/stream")
    malformed = api.get(f"jobs/{over}/events/stream", headers={"Last-Event-ID": "the last one"})

    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert (malformed.status_code, malformed.json()["errors"][0]["field"]) == (422, "header.last-event-id")


@pytest.mark.usefixtures("api")  # whose token is shown
def test_events_arrive_as_they_happen_and_the_last_one_ends_the_stream(database: Database):
    job = a_job(database)

    async def read() -> list[str | None]:
        stream = event_stream(database, None, FIRST_TOKEN, job, 0, poll_seconds=0.01)
        kinds = [(await anext(stream)).event]
        rest = asyncio.create_task(_kinds(stream))
        a_started_worker(database)
        with database.writing.begin() as session:
            request_cancel(session, job)
        await asyncio.sleep(0.05)
        assert not rest.done()
        with database.writing.begin() as session:
            attempt = live_attempts(session)[0]
            lose_attempt(session, attempt.submission_id, "stopped")
        return kinds + await rest

    assert asyncio.run(read()) == ["queued", "started", "cancel_requested", "cancelled"]


async def _kinds(stream: AsyncIterator[ServerSentEvent]) -> list[str | None]:
    return [event.event async for event in stream]


def test_a_stream_ends_with_its_token(api: TestClient, database: Database):
    job = a_job(database)
    made = api.post("tokens", json={"name": "a watcher", "scope": "read"}).json()

    async def read() -> list[str | None]:
        stream = event_stream(database, None, made["secret"], job, 0, poll_seconds=0.01)
        first = (await anext(stream)).event
        assert api.delete(f"tokens/{made['record']['id']}").status_code == 200
        return [first, *await asyncio.wait_for(_kinds(stream), timeout=20)]

    assert asyncio.run(read()) == ["queued"]
