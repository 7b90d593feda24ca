"""Names that lead elsewhere, or that no database or header can hold, are refused wherever a name or bytes are taken."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from services.client.schemas import JobKind
from services.control_plane.app import create_app
from services.control_plane.parts import Parts
from services.storage.artifacts import keep_blob
from services.storage.tokens import keep_first_token
from tests.control_plane.conftest import FIRST_TOKEN
from tests.rows import HOSTILE
from tests.storage.builders import (
    a_body,
    a_checkpoint,
    a_job,
    a_started_worker,
    a_success,
    an_architecture_document,
    an_artifact,
)

NAMES = {
    "parent": "../../../../etc/passwd",
    "root": "/etc/passwd",
    "quoted": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "backslash": "..\\..\\etc\\passwd",
    "NUL": "a\0b",
    "line": "a\r\nSet-Cookie: a=b",
    "half a character": "\ud800",
    "long": "a" * 4096,
}


@pytest.fixture
def client(stored: Parts) -> Iterator[TestClient]:
    with stored.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    with TestClient(create_app(stored), base_url="http://test/api/v1/", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {FIRST_TOKEN}"
        yield client


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "fasterseg.db" not in path.name}


@HOSTILE
def test_a_hostile_name_in_an_address_is_refused(client: TestClient, stored: Parts, tmp_path: Path, record_property):
    a_job(stored.database)
    worker = a_started_worker(stored.database)
    before = files(tmp_path)
    templates = [
        (method, path)
        for path, item in client.get("http://test/openapi.json").json()["paths"].items()
        for method in item
        if "{" in path
    ]
    asked = 0
    for method, path in templates:
        for name in NAMES.values():
            for shown in {quote(name, safe="", errors="surrogatepass"), quote(name, safe="/.", errors="surrogatepass")}:
                beginning, end = path.split("{")[0], path.split("}")[1]
                answer = client.request(
                    method,
                    f"http://test{beginning}{shown}{end}",
                    headers={"Authorization": f"Bearer {worker.token}"}
                    if "attempts" in path or "blobs" in path
                    else {},
                    json={},
                )
                assert 400 <= answer.status_code < 500, (method, path, name, answer.text)
                asked += 1

    assert files(tmp_path) == before
    record_property("runs", asked)


def submissions(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    """What a user could send, with a name at each place that takes one."""
    job = {"kind": "profile", "preset": "quick"}
    yield "jobs", job | {"name": name}
    yield "jobs", job | {"kind": name}
    yield "jobs", job | {"after": [name]}
    yield "jobs", job | {"inputs": {"latency_table": name}}
    yield "jobs", job | {"spec": {"dataset": name}}
    yield "plans", job | {"spec": {"space": {name: 1}}}
    yield "architectures", {"document": an_architecture_document() | {name: 1}}
    yield "latency-tables", {"document": {"fingerprint": {}, "rows": {name: {}}}}
    yield f"latency-tables/{'a' * 64}/estimates", {"architectures": [name]}
    yield "tokens", {"name": name, "scope": "read"}
    yield "tokens", {"name": "a test", "scope": "read", "project": name}


def reports(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    """What a worker could send."""
    success = a_success(JobKind.PROFILE).model_dump(mode="json")
    artifact = an_artifact().model_dump(mode="json")
    yield "events", {"items": [{"worker_sequence": 0, "kind": name, "data": {}}]}
    yield "checkpoint", a_checkpoint(b"state").model_dump(mode="json") | {"sha256": name}
    yield "succeed", success | {"artifacts": [artifact | {"name": name}]}
    yield "succeed", success | {"artifacts": [artifact | {"media_type": name}]}
    yield "succeed", success | {"artifacts": [artifact | {"sha256": name}]}
    yield "succeed", success | {"architectures": {name: an_architecture_document()}}
    yield "succeed", success | {"latency_table": {name: {}}}


@HOSTILE
def test_a_hostile_name_in_a_body_is_refused(client: TestClient, stored: Parts, tmp_path: Path, record_property):
    a_job(stored.database)
    worker = a_started_worker(stored.database)
    keep_blob(stored.database, stored.store, an_artifact().sha256, a_body())
    before = files(tmp_path)
    as_worker = {"Authorization": f"Bearer {worker.token}"}
    sent = [(path, body, {}) for name in NAMES.values() for path, body in submissions(name)]
    sent += [
        (f"attempts/{worker.submission_id}/{path}", body, as_worker)
        for name in NAMES.values()
        for path, body in reports(name)
    ]

    for path, body, headers in sent:
        content = json.dumps(body).encode()  # half a character as its escape
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"} | headers)
        assert answer.status_code == 422, (path, body)

    assert files(tmp_path) == before
    record_property("runs", len(sent))


@HOSTILE
def test_half_a_character_in_what_is_stored_as_it_is_sent_is_refused(client: TestClient, stored: Parts):
    a_job(stored.database)
    worker = a_started_worker(stored.database)

    answer = client.post(
        f"attempts/{worker.submission_id}/events",
        content=b'{"items": [{"worker_sequence": 0, "kind": "note", "data": {"a": "\\ud800"}}]}',
        headers={"Authorization": f"Bearer {worker.token}", "Content-Type": "application/json"},
    )

    assert answer.status_code == 422
    assert "half of a surrogate pair" in answer.json()["detail"]
