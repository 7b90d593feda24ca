"""A job's history as server-sent events."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import pytest
from fastapi.sse import ServerSentEvent
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from services.client.attempt_schemas import WorkerEvent
from services.control_plane.event_stream import READERS, EventStreams
from services.storage.attempts import live_attempts, lose_attempt
from services.storage.database import Database
from services.storage.events import PAGE
from services.storage.jobs import request_cancel
from services.storage.worker_writes import acknowledge_stop, report_events
from tests.control_plane.builders import submitted
from tests.control_plane.conftest import FIRST_TOKEN
from tests.control_plane.waiting import finished, until
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


def test_a_history_of_more_than_a_page_comes_whole_and_in_order(api: TestClient, database: Database):
    job = a_job(database)
    worker = a_started_worker(database)
    steps = [WorkerEvent(worker_sequence=number, kind="step", data={}) for number in range(PAGE)]
    with database.writing.begin() as session:
        report_events(session, worker.submission_id, worker.token, steps)
        request_cancel(session, job)
        acknowledge_stop(session, worker.submission_id, worker.token)

    stream = api.get(f"jobs/{job}/events/stream").text

    assert sequences(stream) == list(range(1, PAGE + 5))  # queued, started, cancel_requested, cancelled


# ---- as it happens --------------------------------------------------------------------------------------------------


class Statements:
    """What the database is asked, and refuses to answer so many times; events may be long in coming."""

    def __init__(self, database: Database) -> None:
        self.asked: list[str] = []
        self.refusals = 0
        self.events_come = threading.Event()
        self.events_come.set()
        event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.asked.append(statement)
        if self.refusals:
            self.refusals -= 1
            raise OperationalError(statement, None, Exception("the database is away"))
        if "FROM events" in statement:
            self.events_come.wait(60)

    def reads(self) -> int:
        """How many streams have read events, or do."""
        return sum("FROM events" in statement for statement in self.asked)

    def looks(self) -> list[str]:
        """The statements of each transaction that only read, but for the last one, which may not be over."""
        return "\n".join(self.asked).split("BEGIN\n")[1:-1]


@pytest.fixture
def statements(database: Database) -> Statements:
    return Statements(database)


@pytest.fixture
def streams(api: TestClient, database: Database) -> EventStreams:
    """Those of another process than the one that is asked, on the same database."""
    return EventStreams(database, None, poll_seconds=0.01)


async def caught_up(streams: EventStreams, job: str, token: str = FIRST_TOKEN) -> asyncio.Task[list[str | None]]:
    """The kinds of events that a stream gives from now on: it has read that its job was queued, and waits."""
    stream = streams.follow(token, job, 0)
    assert (await anext(stream)).event == "queued"
    rest = asyncio.create_task(_kinds(stream))
    await asyncio.sleep(0)  # until it waits
    return rest


async def _kinds(stream: AsyncIterator[ServerSentEvent]) -> list[str | None]:
    return [event.event async for event in stream]


def cancel(database: Database, job: str) -> None:
    with database.writing.begin() as session:
        request_cancel(session, job)


def test_events_arrive_as_they_happen_and_the_last_one_ends_the_stream(streams: EventStreams, database: Database):
    job = a_job(database)

    async def read() -> None:
        stream = streams.follow(FIRST_TOKEN, job, 0)
        assert (await anext(stream)).event == "queued"
        a_started_worker(database)
        assert (await anext(stream)).event == "started"
        cancel(database, job)
        assert (await anext(stream)).event == "cancel_requested"
        with database.writing.begin() as session:
            lose_attempt(session, live_attempts(session)[0].submission_id, "stopped")
        assert await _kinds(stream) == ["cancelled"]

    finished(read())


def test_all_who_watch_a_job_are_given_its_events_a_few_at_a_time(
    streams: EventStreams, database: Database, statements: Statements
):
    job, other = a_job(database), a_job(database)

    async def read() -> None:
        await caught_up(streams, other)
        rest = [await caught_up(streams, job) for _ in range(20)]
        statements.asked.clear()
        statements.events_come.clear()
        cancel(database, job)
        await until(lambda: statements.reads() == READERS)
        looks = len(statements.looks())
        await until(lambda: len(statements.looks()) > looks + 2)
        assert statements.reads() == READERS
        statements.events_come.set()
        assert await asyncio.gather(*rest) == [["cancel_requested", "cancelled"]] * 20

    finished(read())


def test_many_streams_ask_the_database_as_often_as_one(
    streams: EventStreams, database: Database, statements: Statements
):
    jobs = [a_job(database) for _ in range(30)]

    async def look(jobs: list[str]) -> str:
        rest = [await caught_up(streams, job) for job in jobs]
        statements.asked.clear()
        await until(lambda: len(statements.looks()) > 1)
        for each in rest:
            each.cancel()
        return statements.looks()[1]  # the first may have begun before all of them waited

    async def read() -> None:
        of_one, of_all = await look(jobs[:1]), await look(jobs)
        assert of_all.count("SELECT") == of_one.count("SELECT")
        assert of_all.count("FROM jobs") == 1
        assert "FROM events" not in of_all

    finished(read())


def test_streams_of_other_jobs_read_nothing_when_one_has_an_event(
    streams: EventStreams, database: Database, statements: Statements
):
    job, *others = [a_job(database) for _ in range(10)]

    async def read() -> None:
        for other in others:
            await caught_up(streams, other)
        rest = await caught_up(streams, job)
        statements.asked.clear()
        cancel(database, job)
        assert await rest == ["cancel_requested", "cancelled"]
        looks = len(statements.looks())
        await until(lambda: len(statements.looks()) > looks + 2)
        assert statements.reads() == 1

    finished(read())


def test_nothing_is_asked_while_nobody_watches_and_who_comes_then_is_served(streams: EventStreams, database: Database):
    job = a_job(database)

    async def read() -> None:
        at_rest = asyncio.all_tasks()
        rest = await caught_up(streams, job)
        rest.cancel()
        await until(lambda: asyncio.all_tasks() == at_rest)
        rest = await caught_up(streams, job)
        cancel(database, job)
        assert await rest == ["cancel_requested", "cancelled"]

    finished(read())


def test_a_client_that_is_gone_keeps_nothing_from_the_others(streams: EventStreams, database: Database):
    job = a_job(database)

    async def read() -> None:
        gone, rest = await caught_up(streams, job), await caught_up(streams, job)
        gone.cancel()
        cancel(database, job)
        assert await rest == ["cancel_requested", "cancelled"]

    finished(read())


def test_a_stream_outlives_a_look_that_failed(streams: EventStreams, database: Database, statements: Statements):
    job = a_job(database)

    async def read() -> None:
        rest = await caught_up(streams, job)
        statements.refusals = 1
        await until(lambda: statements.refusals == 0)
        cancel(database, job)
        assert await rest == ["cancel_requested", "cancelled"]

    finished(read())


def test_a_stream_ends_with_a_line_where_the_database_stays_away(
    streams: EventStreams, database: Database, statements: Statements, caplog: pytest.LogCaptureFixture
):
    job = a_job(database)

    async def read() -> None:
        rest = await caught_up(streams, job)
        statements.refusals = 2  # of the look, and of the stream
        assert await rest == []

    finished(read())
    (line,) = caplog.records
    assert (line.getMessage(), vars(line)["error"]) == ("an event stream ends", "the database is away")


def test_streams_end_together_and_those_that_begin_then_at_once(streams: EventStreams, database: Database):
    jobs = [a_job(database) for _ in range(3)]

    async def read() -> None:
        rest = [await caught_up(streams, job) for job in jobs]
        streams.end()
        assert await asyncio.gather(*rest) == [[]] * 3
        assert await _kinds(streams.follow(FIRST_TOKEN, jobs[0], 0)) == []

    finished(read())


def test_a_stream_that_reads_while_all_end_does_not_wait(
    streams: EventStreams, database: Database, statements: Statements
):
    job = a_job(database)

    async def read() -> None:
        statements.events_come.clear()
        reading = asyncio.create_task(_kinds(streams.follow(FIRST_TOKEN, job, 0)))
        await until(lambda: statements.reads() == 1)
        streams.end()
        statements.events_come.set()
        assert await reading == ["queued"]

    finished(read())


def test_a_stream_ends_with_its_token(api: TestClient, streams: EventStreams, database: Database):
    job = a_job(database)
    made = api.post("tokens", json={"name": "a watcher", "scope": "read"}).json()

    async def read() -> None:
        rest, other = await caught_up(streams, job, made["secret"]), await caught_up(streams, job)
        assert api.delete(f"tokens/{made['record']['id']}").status_code == 200
        assert await rest == []
        assert not other.done()

    finished(read())


def test_a_stream_ends_with_the_attempt_whose_token_was_shown(streams: EventStreams, database: Database):
    a_job(database)
    worker = a_started_worker(database)
    other_job = a_job(database)

    async def read() -> None:
        rest = await caught_up(streams, other_job, worker.token)
        with database.writing.begin() as session:
            lose_attempt(session, worker.submission_id, "killed")
        assert await rest == []

    finished(read())
