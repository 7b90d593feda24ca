"""Requests under their ids, timed and logged."""

import logging

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from services.telemetry.logs import note, request_id
from services.telemetry.requests import REQUEST_ID, WatchedRequests


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def client(registry: CollectorRegistry) -> TestClient:
    app = FastAPI()
    app.add_middleware(WatchedRequests, registry=registry)

    @app.get("/jobs/{job_id}")
    def show(job_id: str) -> str | None:
        note(project="maps")
        return request_id()

    @app.get("/health")
    def health(fails: bool = False) -> str:
        return str(1 / 0 if fails else "ok")

    @app.get("/broken-off")
    def broken_off() -> StreamingResponse:
        return StreamingResponse(str(number // (number - 1)) for number in (2, 1))

    return TestClient(app, raise_server_exceptions=False)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == "request" and record.levelno >= level]


def test_a_request_keeps_the_id_that_it_came_with(client: TestClient) -> None:
    response = client.get("/jobs/a", headers={REQUEST_ID: "from.the-proxy_1"})

    assert (response.headers[REQUEST_ID], response.json()) == ("from.the-proxy_1", "from.the-proxy_1")


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with a space", 'quote"quote"', "semi;colon"])
def test_an_id_that_is_not_well_formed_is_replaced(client: TestClient, given: str) -> None:
    made = client.get("/jobs/a", headers={REQUEST_ID: given}).headers[REQUEST_ID]

    assert made != given
    assert len(made) == 16


def test_every_request_has_an_id_of_its_own(client: TestClient) -> None:
    assert client.get("/jobs/a").headers[REQUEST_ID] != client.get("/jobs/a").headers[REQUEST_ID]


def test_a_request_is_logged_by_its_route_and_without_its_query(
    client: TestClient, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get("/jobs/0123456789ab?token=canary", headers={"Authorization": "Bearer canary"})

    (line,) = lines(caplog)
    assert (line.method, line.route, line.status) == ("GET", "/jobs/{job_id}", 200)
    counted = {"method": "GET", "route": "/jobs/{job_id}", "status": "200"}
    seconds = registry.get_sample_value("fasterseg_http_request_seconds_sum", counted)
    assert line.milliseconds == pytest.approx(1000 * seconds, abs=0.1)
    assert not any("canary" in str(vars(record)) for record in lines(caplog, logging.DEBUG))


def test_a_sign_of_life_is_logged_only_where_there_is_none(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get("/health")
        assert lines(caplog) == []

        client.get("/health?fails=1")

    assert [line.status for line in lines(caplog)] == [500]


def test_an_answer_that_breaks_off_is_told_once_as_it_began(
    client: TestClient, caplog: pytest.LogCaptureFixture, registry: CollectorRegistry
) -> None:
    with caplog.at_level(logging.INFO):
        client.get("/broken-off")

    labels = {"method": "GET", "route": "/broken-off"}
    count = "fasterseg_http_request_seconds_count"
    assert [line.status for line in lines(caplog)] == [200]
    assert registry.get_sample_value(count, labels | {"status": "200"}) == 1
    assert registry.get_sample_value(count, labels | {"status": "500"}) is None


def test_a_request_is_timed_by_its_route(client: TestClient, registry: CollectorRegistry) -> None:
    client.get("/jobs/a")
    client.get("/nowhere")

    for route, status in (("/jobs/{job_id}", "200"), ("other", "404")):
        labels = {"method": "GET", "route": route, "status": status}
        assert registry.get_sample_value("fasterseg_http_request_seconds_count", labels) == 1
