"""Every refusal is problem+json, bounded, and never repeats what was sent."""

import asyncio
import errno
from collections.abc import Iterator

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.types import Message

from services.client.schemas import Problem
from services.control_plane.app import create_app
from services.control_plane.parts import Parts

CANARY = "canary-8c1f"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404),
        ("DELETE", "jobs", None, 405),
        ("GET", "jobs/NOT-AN-ID", None, 422),
        ("GET", "architectures/12", None, 422),
        ("GET", f"artifacts/{'0' * 64}", None, 404),
        ("POST", "jobs", f'{{"kind": "{CANARY}"', 422),
        ("POST", "jobs", f'{{"kind": "{CANARY}"}}', 422),
        ("POST", "jobs", f'{{"kind": "profile", "name": "{CANARY}/"}}', 422),
        ("POST", "jobs", f'{{"kind": "profile", "spec": {{"threads": "{CANARY}"}}}}', 422),
        ("POST", "jobs", "[]", 422),
        ("POST", "jobs", '"' * 3, 422),
        ("POST", "jobs", "[" * 50_000, 400),
        ("POST", "jobs", f'{{"kind": "profile", "spec": {{"a": {"[" * 400}{"]" * 400}}}}}', 422),
    ],
)
def test_a_refusal_is_a_problem_without_an_echo(api: TestClient, method: str, path: str, body: str | None, status: int):
    response = api.request(method, path, content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert Problem.model_validate(response.json()).status == status
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    assert CANARY not in response.text


def test_a_body_that_is_not_declared_as_json_is_told_how(api: TestClient):
    response = api.post("jobs", content='{"kind": "profile"}', headers={"Content-Type": "text/plain"})

    assert response.status_code == 422
    assert response.json()["detail"].startswith(
        "body: is taken for JSON with the header Content-Type: application/json"
    )


def test_a_declared_body_over_the_limit_is_refused(api: TestClient):
    response = api.post("jobs", content=b"x" * 100_001, headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert response.json()["detail"] == "the body is larger than 100000 bytes"
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


def test_an_undeclared_body_is_refused_once_it_is_over_the_limit(api: TestClient):
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    response = api.post("jobs", content=chunks(), headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_a_blob_may_be_larger_than_a_document(api: TestClient):
    response = api.put(f"blobs/{'0' * 64}", content=b"x" * 200_000, headers={"Authorization": "Bearer wrong"})

    assert response.status_code == 401, "refused for its token, not for its size"


def test_a_database_that_is_away_is_unavailable(api: TestClient, parts: Parts):
    with parts.database.writing.begin() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))

    response = api.get("jobs")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "elsewhere" not in response.text


def test_an_error_of_ours_is_a_problem_too(parts: Parts):
    app = create_app(parts)

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError(CANARY)

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken")

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    assert CANARY not in response.text


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 500)])
def test_a_disk_without_room_is_worth_asking_again(parts: Parts, number: int, status: int):
    app = create_app(parts)

    @app.get("/full")
    def full() -> None:
        raise OSError(number, CANARY)

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/full")

    assert response.status_code == status
    assert response.headers.get("retry-after") == ("5" if status == 507 else None)
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text


def test_a_body_whose_sender_has_gone_is_no_error_of_ours(parts: Parts):
    app = create_app(parts)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    @app.put("/body")
    async def body(request: Request) -> None:
        await request.body()

    scope = {"type": "http", "method": "PUT", "path": "/body", "query_string": b"", "headers": [], "client": None}
    asyncio.run(app(scope, receive, send))

    assert sent[0]["status"] == 400


def test_the_documentation_needs_no_other_host(parts: Parts):
    with TestClient(create_app(parts)) as client:
        page = client.get("/docs").text
        assert "https://" not in page
        assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
        assert "Problem" in client.get("/openapi.json").json()["components"]["schemas"]
