"""Spans as a collector is told them, and what becomes of those that it is not."""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from services.telemetry.requests import REQUEST_ID, WatchedRequests, onward_headers
from services.telemetry.settings import TelemetrySettings, open_traces
from services.telemetry.traces import COMPLAINT_SECONDS, Seldom, Traces
from tests.clock import FakeClock
from tests.collector import Collector, ToldSpan, collecting

TRACE, SENDER = "0123456789abcdef" * 2, "fedcba9876543210"
TRACEPARENT = f"00-{TRACE}-{SENDER}-01"
QUEUE = 2048  # the SDK's, unless OTEL_BSP_MAX_QUEUE_SIZE is another
BATCH = 512  # as many are sent at once


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def traces(collector: Collector) -> Iterator[Traces]:
    with Traces(collector.address, "test") as traces:
        yield traces


def a_client(traces: Traces | None) -> TestClient:
    app = FastAPI()
    app.add_middleware(WatchedRequests, registry=CollectorRegistry(), traces=traces)

    @app.get("/jobs/{job_id}")
    def show(job_id: str, fails: bool = False) -> dict[str, str]:
        return onward_headers() if not fails else {"": str(1 / 0)}

    @app.get("/health")
    def health(fails: bool = False) -> str:
        return str(1 / 0 if fails else "ok")

    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(traces: Traces) -> TestClient:
    return a_client(traces)


def told(traces: Traces, collector: Collector) -> list[ToldSpan]:
    """Everything, once the process is at its end."""
    traces.close()
    return collector.spans


def tell(traces: Traces, number: int) -> None:
    for _ in range(number):
        traces.request(None).end()


def test_a_request_is_a_span_of_its_route(client: TestClient, traces: Traces, collector: Collector):
    client.get("/jobs/0123456789ab?token=canary", headers={REQUEST_ID: "from.the-proxy_1"})

    (span,) = told(traces, collector)
    assert (span.process, span.name, span.parent_id, span.is_error) == (
        "fasterseg-test",
        "GET /jobs/{job_id}",
        "",
        False,
    )
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/jobs/{job_id}",
        "http.response.status_code": 200,
        "fasterseg.request": "from.the-proxy_1",
        "fasterseg.job": "0123456789ab",
    }


def test_a_request_goes_on_with_the_trace_of_its_sender(client: TestClient, traces: Traces, collector: Collector):
    client.get("/jobs/a", headers={"traceparent": TRACEPARENT})

    (span,) = told(traces, collector)
    assert (span.trace_id, span.parent_id) == (TRACE, SENDER)


@pytest.mark.parametrize("given", ["", "00-1-2-01", f"00-{'0' * 32}-{SENDER}-01", "x" * 10_000])
def test_a_header_that_is_malformed_is_none(client: TestClient, traces: Traces, collector: Collector, given: str):
    assert client.get("/jobs/a", headers={"traceparent": given}).status_code == 200

    (span,) = told(traces, collector)
    assert span.parent_id == ""


def test_what_a_request_asks_of_others_belongs_to_its_span(client: TestClient, traces: Traces, collector: Collector):
    headers = client.get("/jobs/a", headers={REQUEST_ID: "from.the-proxy_1"}).json()

    (span,) = told(traces, collector)
    assert span.is_named_by(headers.pop("traceparent"))
    assert headers == {REQUEST_ID: "from.the-proxy_1"}


def test_an_error_of_ours_is_one(client: TestClient, traces: Traces, collector: Collector):
    client.get("/jobs/a?fails=1")
    client.get("/nowhere")

    spans = told(traces, collector)
    assert [(span.name, span.is_error) for span in spans] == [("GET /jobs/{job_id}", True), ("GET other", False)]


def test_a_sign_of_life_is_told_only_where_there_is_none(client: TestClient, traces: Traces, collector: Collector):
    client.get("/health")
    client.get("/health?fails=1")

    assert [span.attributes["http.response.status_code"] for span in told(traces, collector)] == [500]


def test_what_fails_within_a_span_marks_it_without_its_message(traces: Traces, collector: Collector):
    with pytest.raises(LookupError), traces.span("dispatch", TRACEPARENT, {"job": "a"}):
        raise LookupError("canary")

    (span,) = told(traces, collector)
    assert (span.parent_id, span.is_error, span.attributes) == (SENDER, True, {"fasterseg.job": "a"})


def test_without_a_collector_a_request_has_no_span():
    assert open_traces("", "test") is None
    assert "traceparent" not in a_client(None).get("/jobs/a", headers={"traceparent": TRACEPARENT}).json()


def test_a_collector_that_refuses_costs_only_its_spans():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        traces = Traces(f"http://127.0.0.1:{closed.getsockname()[1]}", "test", flush_seconds=0.1)
        tell(traces, BATCH)

        assert a_client(traces).get("/jobs/a").status_code == 200
        traces.close()


def test_a_collector_that_hangs_keeps_nobody_waiting(collector: Collector):
    traces = Traces(collector.address, "test", flush_seconds=0.1)
    collector.hang()
    tell(traces, BATCH)
    collector.wait_until_asked()

    assert a_client(traces).get("/jobs/a").status_code == 200
    traces.close()
    assert collector.spans == []


def test_a_collector_that_is_away_does_not_fill_the_log():
    clock = FakeClock()
    seldom = Seldom(clock)
    line = logging.makeLogRecord({})

    assert [seldom.filter(line), seldom.filter(line)] == [True, False]
    clock.now += COMPLAINT_SECONDS
    assert [seldom.filter(line), seldom.filter(line)] == [True, False]


def test_what_the_queue_cannot_hold_is_dropped(traces: Traces, collector: Collector):
    collector.hang()
    tell(traces, BATCH)
    collector.wait_until_asked()
    tell(traces, 2 * QUEUE)
    collector.go_on()

    assert len(told(traces, collector)) == BATCH + QUEUE


@pytest.mark.parametrize(
    ("modules", "stays_out"),
    [
        ("services.control_plane.__main__", "opentelemetry.sdk"),  # FastAPI imports OpenTelemetry's interface by itself
        ("services.workers.driver, services.workers.stages", "opentelemetry"),
    ],
)
def test_a_process_without_a_collector_imports_nothing_of_it(modules: str, stays_out: str):
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith({stays_out!r})])"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")

    with pytest.raises(ValidationError, match="OTEL_EXPORTER_OTLP_ENDPOINT\n.*pattern"):
        TelemetrySettings()
