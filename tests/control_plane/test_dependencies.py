"""Requests that wait for a part of the service, or for their own senders and readers, keep no others waiting."""

import asyncio
import hashlib
from dataclasses import replace
from typing import IO

import httpx
import pytest
from anyio import from_thread
from fastapi import FastAPI
from starlette.types import Message, Scope

from services.control_plane import transfers
from services.control_plane.app import create_app
from services.control_plane.dependencies import MOST_AT_PART, MOST_COPIES, MOST_SESSIONS
from services.control_plane.parts import Parts
from services.storage.folder_store import FolderStore
from services.storage.tokens import keep_first_token
from tests.control_plane.builders import a_stored_table
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.control_plane.fakes import FakeProfiler
from tests.control_plane.waiting import finished, until
from tests.storage.builders import (
    BLOB,
    Worker,
    a_job,
    a_started_worker,
    a_trained_job,
    an_architecture_document,
    an_artifact,
)


def an_app(parts: Parts) -> FastAPI:
    """The application on these parts, which lets in the first token."""
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    return create_app(parts)


@pytest.fixture
def app(parts: Parts) -> FastAPI:
    return an_app(parts)


def asking(app: FastAPI, token: str = FIRST_TOKEN) -> httpx.AsyncClient:
    """Requests with a token, in the event loop of the test."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test/api/v1/",
        headers={"Authorization": f"Bearer {token}"},
    )


def as_asgi(method: str, path: str, token: str) -> Scope:
    """A request without its body, as a server hands it to the application."""
    return {
        "type": "http",
        "method": method,
        "path": f"/api/v1/{path}",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "client": None,
    }


class Copies(FolderStore):
    """A store that notes the copies that it was asked for."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.settings.state_folder / "blobs")
        self.made: list[IO[bytes]] = []

    def open(self, sha256: str) -> IO[bytes]:
        self.made.append(super().open(sha256))
        return self.made[-1]


async def read_once(let: asyncio.Event, app: FastAPI, sha256: str) -> list[Message]:
    """What a download is answered by, of whose body its reader takes nothing until he is let."""
    answer = list[Message]()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await let.wait()
        answer.append(message)

    await app(as_asgi("GET", f"artifacts/{sha256}", FIRST_TOKEN), receive, send)
    return answer


def test_slow_readers_keep_a_bounded_number_of_copies_and_nobody_else_waiting(parts: Parts):
    store = Copies(parts)
    a_trained_job(parts.database, store)
    app = an_app(replace(parts, store=store))

    async def downloads() -> None:
        let = asyncio.Event()
        readers = [
            asyncio.create_task(read_once(let, app, an_artifact().sha256)) for _ in range(MOST_COPIES + MOST_AT_PART)
        ]
        await until(lambda: len(store.made) >= MOST_COPIES)
        async with asking(app) as users:
            assert (await users.get("jobs")).status_code == 200
        assert len(store.made) == MOST_COPIES
        let.set()
        for answer in await asyncio.gather(*readers):
            assert b"".join(message.get("body", b"") for message in answer) == BLOB

    finished(downloads())
    assert {copy.closed for copy in store.made} == {True}


def test_a_reader_who_takes_nothing_is_cut_off_and_his_copy_closed(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfers, "STALL_SECONDS", 0.01)
    store = Copies(parts)
    a_trained_job(parts.database, store)
    app = an_app(replace(parts, store=store))

    answer = finished(read_once(asyncio.Event(), app, an_artifact().sha256))

    assert [message["type"] for message in answer] == ["http.response.start"]
    assert [copy.closed for copy in store.made] == [True]


async def stalled_upload(app: FastAPI, worker: Worker) -> int:
    """The status of an upload whose sender is gone after the first byte."""
    pieces = [b"a"]
    answer = list[Message]()

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message: Message) -> None:
        answer.append(message)

    await app(as_asgi("PUT", f"blobs/{'a' * 64}", worker.token), receive, send)
    return answer[0]["status"]


def test_uploads_that_stall_are_cut_off_and_keep_no_other_from_the_store(
    app: FastAPI, parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfers, "STALL_SECONDS", 0.01)
    a_job(parts.database)
    worker = a_started_worker(parts.database)

    async def uploads() -> list[int]:
        stalled = [asyncio.create_task(stalled_upload(app, worker)) for _ in range(MOST_AT_PART)]
        await asyncio.sleep(0)  # until each has its turn
        async with asking(app, worker.token) as api:
            stored = await api.put(f"blobs/{hashlib.sha256(b'whole').hexdigest()}", content=b"whole")
        return [stored.status_code, *await asyncio.gather(*stalled)]

    assert finished(uploads()) == [204] + [408] * MOST_AT_PART


def test_a_profiler_that_reads_a_table_here_finds_a_session_however_many_estimates_wait(
    app: FastAPI, parts: Parts, profiler: FakeProfiler
):
    table = a_stored_table(parts.database)
    path, body = f"latency-tables/{table}/estimates", {"architectures": [an_architecture_document()]}

    async def estimates() -> list[int]:
        async with asking(app) as users, asking(app, PROFILER_TOKEN) as own:
            profiler.work = lambda: from_thread.run(asyncio.wait_for, own.get(f"latency-tables/{table}"), 60)
            answers = await asyncio.gather(*(users.post(path, json=body) for _ in range(MOST_SESSIONS + 1)))
            return [answer.status_code for answer in answers]

    assert finished(estimates()) == [200] * (MOST_SESSIONS + 1)
