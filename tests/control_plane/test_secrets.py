"""No secret reaches a log line, at the level that says most, whatever fails."""

import io
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from services.control_plane.__main__ import open_parts
from services.control_plane.parts import Parts
from services.control_plane.settings import Settings
from services.control_plane.store import require_usable
from services.storage.database import Database, migrate
from services.telemetry.logs import JsonLines
from tests.control_plane.builders import a_dispatcher
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.control_plane.fakes import FakeRay
from tests.serving import TOKEN, control_plane
from tests.storage.builders import a_job

CANARY = "canary-5f1c-that-nobody-may-read"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that this process logs meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines({}))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # of the test's client
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def test_tokens_of_users_workers_and_the_profiler_are_in_no_line(
    log: io.StringIO, api: TestClient, parts: Parts, database: Database, ray: FakeRay
) -> None:
    a_job(database)
    a_dispatcher(parts).tick()
    dispatch = ray.submitted[0]
    path = f"attempts/{dispatch.submission_id}"
    ticket = {"ticket": dispatch.ticket}
    token = api.post(f"{path}/redeem", json=ticket).json()["token"]
    made = api.post("tokens", json={"name": "ana", "scope": "read"}).json()["secret"]
    as_worker, as_profiler, as_nobody = (
        {"Authorization": f"Bearer {secret}"} for secret in (token, PROFILER_TOKEN, CANARY)
    )

    statuses = [
        api.post(f"{path}/heartbeat", json={}, headers=as_worker).status_code,
        api.post(f"{path}/fail", json={"reason": CANARY}, headers=as_worker).status_code,
        api.post(f"{path}/redeem", json=ticket).status_code,
        api.get("latency-tables", headers=as_profiler).status_code,
        api.get(f"jobs?token={CANARY}", headers=as_nobody).status_code,
    ]

    assert statuses == [200, 422, 409, 401, 401]
    assert '"event": "request"' in log.getvalue()
    for secret in (FIRST_TOKEN, PROFILER_TOKEN, dispatch.ticket, token, made, CANARY):
        assert secret not in log.getvalue()


def test_a_process_that_serves_writes_json_without_secrets(tmp_path: Path) -> None:
    profiler = CANARY + "-profiler"
    with control_plane(tmp_path, LOG_FORMAT="json", LOG_LEVEL="debug", PROFILER_TOKEN=profiler) as served:
        for token in (TOKEN, CANARY + "-wrong"):
            shown = {"Authorization": f"Bearer {token}"}
            httpx.get(f"{served.address}/api/v1/jobs?{CANARY}", headers=shown, trust_env=False)
        served.process.terminate()
        served.process.wait()

    lines = served.log.read_text()
    said = [json.loads(line) for line in lines.splitlines()]
    assert [line["status"] for line in said if line["event"] == "request" and line["route"] == "/jobs"] == [200, 401]
    assert "tick failed" in {line["event"] for line in said}, "Ray is away"
    assert {"time", "level", "logger", "event"} <= set.intersection(*(set(line) for line in said))
    assert CANARY not in lines
    assert TOKEN not in lines


def start(settings: Settings) -> None:
    parts = open_parts(settings)
    require_usable(parts.store)
    migrate(parts.database)


@pytest.mark.parametrize(
    "settings",
    [
        {"FASTERSEG_DATABASE_URL": f"postgresql+psycopg2://fasterseg:{CANARY}@127.0.0.1:1/fasterseg"},
        {"FASTERSEG_DATABASE_URL": f"postgresql+psycopg2:/fasterseg:{CANARY}@127.0.0.1:port/fasterseg"},
        {"FASTERSEG_S3_ENDPOINT": "127.0.0.1:1", "FASTERSEG_S3_ACCESS_KEY": "a", "FASTERSEG_S3_SECRET_KEY": CANARY},
        {"FASTERSEG_PROFILER_TOKEN": CANARY[:15]},
    ],
    ids=["database away", "no address of a database", "store away", "short token"],
)
def test_what_keeps_a_process_from_starting_is_said_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO, settings: dict[str, str]
) -> None:
    for name, value in {
        "FASTERSEG_STATE_FOLDER": str(tmp_path),
        "FASTERSEG_PROFILER_TOKEN": CANARY,
        **settings,
    }.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BaseException) as raised:  # noqa: PT011 - each cause has its own
        start(Settings())

    said = "".join(traceback.format_exception(raised.value)) + log.getvalue()
    assert "Traceback" in said
    assert CANARY[:15] not in said
