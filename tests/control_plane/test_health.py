"""How the parts are, and that asking for it costs others nothing."""

import asyncio
import threading

import httpx
from fastapi.testclient import TestClient

from services.client.schemas import Health
from services.control_plane.app import create_app
from services.control_plane.health import KEPT_SECONDS, OK, HealthChecks
from services.control_plane.parts import Parts
from services.storage.errors import Unavailable
from services.storage.tokens import keep_first_token
from tests.clock import FakeClock
from tests.control_plane.conftest import FIRST_TOKEN
from tests.control_plane.fakes import FakeProfiler, FakeRay
from tests.control_plane.waiting import finished

FASTAPI_THREADS = 40


def test_health_is_ok_where_every_part_answers(api: TestClient):
    health = api.get("health").json()

    assert health["status"] == "ok"
    assert {health[part] for part in ("database", "store", "ray", "profiler")} == {"ok"}


def test_health_names_the_part_that_is_away(api: TestClient, ray: FakeRay, profiler: FakeProfiler):
    ray.is_away = profiler.is_away = True

    health = api.get("health").json()

    assert health["status"] == "degraded"
    assert health["ray"] == "Ray does not answer"
    assert "profiler does not answer" in health["profiler"]


def test_parts_are_asked_together(parts: Parts, ray: FakeRay, profiler: FakeProfiler):
    asked = threading.Event()
    profiler.work = asked.set

    def wait_for_the_profiler() -> None:
        if not asked.wait(30):
            raise Unavailable("the profiler is asked later")

    ray.work = wait_for_the_profiler

    async def ask() -> None:
        assert (await HealthChecks(parts, patience_seconds=60).health()).ray == OK

    finished(ask())


def test_whoever_asks_meanwhile_or_soon_after_has_the_same_answer(parts: Parts, ray: FakeRay, clock: FakeClock):
    async def ask() -> None:
        checks = HealthChecks(parts, patience_seconds=60, clock=clock)
        await asyncio.gather(*(checks.health() for _ in range(50)))
        await checks.health()
        assert ray.checks == 1
        clock.now += KEPT_SECONDS
        await checks.health()
        assert ray.checks == 2

    finished(ask())


def test_a_part_that_hangs_is_told_and_asked_no_more_until_it_answers(parts: Parts, ray: FakeRay, clock: FakeClock):
    released = threading.Event()
    ray.work = released.wait

    async def ask() -> None:
        checks = HealthChecks(parts, patience_seconds=0.01, clock=clock)

        async def later() -> Health:
            clock.now += KEPT_SECONDS
            return await checks.health()

        assert [(await later()).ray for _ in range(3)] == ["does not answer"] * 3
        assert ray.checks == 1
        released.set()
        while (await later()).ray != OK:
            pass

    try:
        finished(ask())
    finally:
        released.set()


def test_others_are_served_however_many_ask_while_a_part_hangs(parts: Parts, ray: FakeRay):
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    released = threading.Event()
    ray.work = released.wait
    transport = httpx.ASGITransport(create_app(parts))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/") as client:
            checks = [asyncio.create_task(client.get("health")) for _ in range(2 * FASTAPI_THREADS)]
            await asyncio.sleep(0)  # until all of them are sent
            jobs = await client.get("jobs", headers={"Authorization": f"Bearer {FIRST_TOKEN}"})
            released.set()
            assert {answer.status_code for answer in (jobs, *await asyncio.gather(*checks))} == {200}

    try:
        finished(ask())
    finally:
        released.set()


def test_a_process_is_alive_whatever_else_is_away(anonymous: TestClient, ray: FakeRay):
    assert anonymous.get("health/live").status_code == 204
    assert ray.checks == 0
