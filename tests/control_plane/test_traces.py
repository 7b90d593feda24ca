"""One trace of a job: from the request that submits it to the worker, which is handed its dispatch."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from services.control_plane.app import create_app
from services.control_plane.dispatcher import RESUBMIT_SECONDS
from services.control_plane.parts import Parts
from services.storage.attempts import Dispatch
from services.storage.database import database_now
from services.storage.errors import Unavailable
from services.storage.tables import AttemptRow
from services.telemetry.traces import Traces
from tests.collector import Collector, ToldSpan, collecting
from tests.control_plane.builders import a_dispatcher, a_stored_table
from tests.control_plane.fakes import FakeProfiler, FakeRay
from tests.storage.builders import an_architecture_document

TRACE, SENDER = "0123456789abcdef" * 2, "fedcba9876543210"


class RefusingRay(FakeRay):
    """Lists its jobs and takes none."""

    def submit(self, dispatch: Dispatch) -> None:
        raise Unavailable("Ray does not answer")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def traces(collector: Collector) -> Traces:
    return Traces(collector.address, "control-plane")


@pytest.fixture
def parts(parts: Parts, traces: Traces) -> Iterator[Parts]:
    with traces:
        yield replace(parts, traces=traces)


def submit(api: TestClient) -> str:
    """The id of a job that someone submits within a span."""
    submission = {"kind": "profile", "preset": "quick"}
    answer = api.post("jobs", json=submission, headers={"traceparent": f"00-{TRACE}-{SENDER}-01"})
    return str(answer.json()["id"])


def told(traces: Traces, collector: Collector, name: str) -> list[ToldSpan]:
    """The spans of a name, once the process is at its end."""
    traces.close()
    return [span for span in collector.spans if span.name == name]


def test_a_dispatch_goes_on_with_the_trace_of_the_submission_and_is_handed_to_the_worker(
    api: TestClient, parts: Parts, ray: FakeRay, traces: Traces, collector: Collector
):
    job = submit(api)
    a_dispatcher(parts).tick()

    (request,), (dispatch,) = told(traces, collector, "POST /jobs"), told(traces, collector, "dispatch")
    assert (request.trace_id, request.parent_id, request.attributes["fasterseg.job"]) == (TRACE, SENDER, job)
    assert (dispatch.trace_id, dispatch.parent_id) == (TRACE, request.span_id)
    assert dispatch.attributes == {
        "fasterseg.job": job,
        "fasterseg.attempt": 1,
        "fasterseg.project": "default",
        "fasterseg.kind": "profile",
    }
    assert dispatch.is_named_by(ray.submitted[-1].traceparent)


def test_each_time_that_an_attempt_is_handed_to_ray_is_a_dispatch(
    api: TestClient, parts: Parts, ray: FakeRay, traces: Traces, collector: Collector
):
    ray.loses_submissions = True
    submit(api)
    dispatcher = a_dispatcher(parts)
    dispatcher.tick()
    with parts.database.writing.begin() as session:
        ago = database_now(session) - timedelta(seconds=RESUBMIT_SECONDS + 5)
        session.execute(update(AttemptRow).values(submitted_at=ago))
    dispatcher.tick()

    first, second = told(traces, collector, "dispatch")
    assert first.parent_id == second.parent_id
    assert second.is_named_by(ray.submitted[-1].traceparent)


def test_a_ray_that_takes_no_job_is_an_error_of_the_dispatch(
    api: TestClient, parts: Parts, traces: Traces, collector: Collector
):
    submit(api)
    with pytest.raises(Unavailable):
        a_dispatcher(parts, ray=RefusingRay()).tick()

    (dispatch,) = told(traces, collector, "dispatch")
    assert dispatch.is_error


def test_the_profiler_is_asked_within_the_request(
    api: TestClient, parts: Parts, profiler: FakeProfiler, traces: Traces, collector: Collector
):
    table = a_stored_table(parts.database)
    api.post(f"latency-tables/{table}/estimates", json={"architectures": [an_architecture_document()]})

    (request,) = told(traces, collector, "POST /latency-tables/{table}/estimates")
    assert request.is_named_by(profiler.requests[0].headers["traceparent"])


def test_lines_about_a_job_name_its_trace(api: TestClient, parts: Parts, caplog: pytest.LogCaptureFixture):
    submit(api)

    with caplog.at_level(logging.INFO):
        a_dispatcher(parts).tick()

    (claimed,) = [record for record in caplog.records if record.message == "claimed"]
    assert claimed.trace_id == TRACE


def test_a_job_that_was_submitted_outside_of_a_trace_has_none(api: TestClient, parts: Parts, ray: FakeRay):
    untraced = TestClient(create_app(replace(parts, traces=None)), base_url="http://test/api/v1/", headers=api.headers)

    job = submit(untraced)
    a_dispatcher(replace(parts, traces=None)).tick()

    assert api.get(f"jobs/{job}/events").json()["items"][0]["data"] == {}
    assert ray.submitted[-1].traceparent is None
