"""Requests that wait for a part of the service, or for their own senders and readers, keep no others waiting."""

import asyncio

import httpx
import pytest
from anyio import from_thread
from fastapi import FastAPI

from services.control_plane.app import create_app
from services.control_plane.parts import MOST_SESSIONS, Parts
from services.storage.tokens import keep_first_token
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.control_plane.fakes import FakeProfiler
from tests.control_plane.test_submission import a_stored_table
from tests.storage.builders import an_architecture_document


@pytest.fixture
def app(parts: Parts) -> FastAPI:
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    return create_app(parts)


def asking(app: FastAPI, token: str = FIRST_TOKEN) -> httpx.AsyncClient:
    """Requests with a token, in the event loop of the test."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test/api/v1/",
        headers={"Authorization": f"Bearer {token}"},
    )


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

    assert asyncio.run(estimates()) == [200] * (MOST_SESSIONS + 1)
