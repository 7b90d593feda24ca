"""Whatever is sent with whichever token is answered as the OpenAPI document says, and never as a fault of ours."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.client.attempt_schemas import AttemptSuccess, WorkerEvent, WorkerEvents
from services.client.schemas import JsonObject, Scope
from services.control_plane.app import create_app
from services.control_plane.parts import Parts
from services.storage.tokens import keep_first_token
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.storage.builders import (
    STATE,
    a_checkpoint,
    a_job,
    a_latency_table_document,
    a_started_worker,
    a_trained_job,
    a_usage,
    an_architecture_document,
    an_artifact,
)

LIVE = "the attempt that runs"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
A_JOB: JsonObject = {
    "kind": "profile",
    "preset": "quick",
    "spec": {"space": {"num_layers": 6}},
    "name": "a",
    "priority": 1,
}
AN_EVENT = WorkerEvent(worker_sequence=0, kind="usage", data=a_usage().model_dump(mode="json"))
A_SUCCESS = AttemptSuccess(
    result={"chain": "a"},
    artifacts=[an_artifact()],
    architectures={"student": an_architecture_document()},
    latency_table=a_latency_table_document(),
)
BODIES: dict[str, JsonObject] = {  # that are accepted; what hypothesis makes of a schema alone never is
    "/jobs": A_JOB,
    "/plans": A_JOB,
    "/jobs/{job_id}/resume": {"max_hours": 5.0, "deadline": "2999-01-01T00:00:00Z"},
    "/architectures": {"document": an_architecture_document()},
    "/latency-tables": {"document": a_latency_table_document()},
    "/latency-tables/{table}/estimates": {"architectures": [an_architecture_document()], "breakdown": True},
    "/tokens": {"name": "a test", "scope": "read", "days": 1},
    "/projects/{name}": {"max_hours": 5.0},
    "/attempts/{submission_id}/heartbeat": {"devices": 1},
    "/attempts/{submission_id}/events": WorkerEvents(items=[AN_EVENT]).model_dump(mode="json"),
    "/attempts/{submission_id}/checkpoint": a_checkpoint(STATE).model_dump(mode="json"),
    "/attempts/{submission_id}/succeed": A_SUCCESS.model_dump(mode="json"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),  # NaN, NUL and half characters
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(document: object) -> Iterator[tuple[str | int, ...]]:
    """Where in a document something is."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield (key,)
        yield from ((key, *place) for place in places(value))


def with_value(document: object, place: tuple[str | int, ...], value: object) -> object:
    """A document with something else at a place."""
    if not place:
        return value
    key, *inner = place
    copy = document.copy()
    copy[key] = with_value(document[key], tuple(inner), value)
    return copy


def renamed(document: object, place: tuple[str | int, ...], name: str, other: str) -> object:
    """A document in which what has a name inside of a place has another."""
    owner = document
    for key in place:
        owner = owner[key]
    return with_value(document, place, {other if key == name else key: value for key, value in owner.items()})


@st.composite
def nearly(draw: st.DrawFn, document: JsonObject) -> object:
    """An accepted document, or one with any other value, or name, anywhere in it."""
    *inside, name = draw(st.sampled_from(list(places(document))))
    match draw(st.sampled_from(["accepted", "value", "name"])):
        case "value":
            return with_value(document, (*inside, name), draw(JSON))
        case "name" if isinstance(name, str):
            return renamed(document, tuple(inside), name, draw(st.text(st.characters(), max_size=30)))
    return document


class Requests:
    """Requests of every operation, each of which is sent with a token of every scope."""

    def __init__(self, api: TestClient, parts: Parts) -> None:
        self._parts = parts
        self.answered: Counter[str] = Counter()  # requests, by whose token was shown
        trained = a_trained_job(parts.database, parts.store)
        cancelled, running = a_job(parts.database), a_job(parts.database)
        api.post(f"jobs/{cancelled}/cancel")
        self._worker = a_started_worker(parts.database)
        made = [api.post("tokens", json={"name": scope, "scope": scope}).json() for scope in Scope]
        self._tokens = {scope: token["secret"] for scope, token in zip(Scope, made, strict=True)}
        api.post("tokens", json={"name": "first", "scope": "read", "project": "elsewhere"})
        document = api.get("http://test/openapi.json").json()
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            operation.pop("security", None)  # tokens are ours to choose
        schema = schemathesis.openapi.from_dict(document)
        schema.app = api.app
        self._strategies: dict[tuple[object, ...], st.SearchStrategy[schemathesis.Case]] = {}
        self._operations: list[APIOperation] = [found.ok() for found in schema.get_all_operations()]
        self._known = {
            "job_id": [trained, cancelled, running],
            "submission_id": [LIVE],
            "name": ["elsewhere"],  # whose jobs no test waits for
            "token_id": [api.post("tokens", json={"name": "unused", "scope": "read"}).json()["record"]["id"]],
            "table": [api.post("latency-tables", json=BODIES["/latency-tables"]).json()["id"]],
            "architecture": [api.post("architectures", json=BODIES["/architectures"]).json()["id"]],
            "sha256": [api.get(f"jobs/{trained}").json()["artifacts"][0]["sha256"]],
        }
        self._finished = {"job_id": [trained, cancelled]}

    def draw(self, draw: st.DrawFn) -> schemathesis.Case:
        """A request to any operation: of what exists or does not, accepted or nearly, as documented or not."""
        operation = draw(st.sampled_from(self._operations))
        path = operation.path.removeprefix("/api/v1")
        known = self._finished if path.endswith("/stream") else self._known  # of others it does not end
        ids = {parameter.name: draw(st.sampled_from(known[parameter.name])) for parameter in operation.path_parameters}
        if operation.method in ("post", "put") and path in BODIES and draw(st.booleans()):
            body = json.dumps(draw(nearly(BODIES[path]))).encode()  # NaN, too, which the client would not write
            return operation.Case(path_parameters=ids, body=body, media_type="application/json")
        exists = draw(st.integers(0, 3)) > 0
        says_more = operation.body or operation.query or operation.headers
        modes = list(GenerationMode) if says_more or (ids and not exists) else [GenerationMode.POSITIVE]
        return draw(self._strategy(operation, draw(st.sampled_from(modes)), ids if exists else {}))

    def send(self, case: schemathesis.Case) -> None:
        """Sends a request with each token; fails where an answer is not documented, or a fault of ours."""
        if case.path_parameters.get("submission_id") == LIVE:
            case.path_parameters["submission_id"] = self._worker.submission_id
        tokens = {**self._tokens, "profiler": PROFILER_TOKEN, "attempt": self._worker.token, "nobody": None}
        for whose, token in tokens.items():
            response = case.call(headers={} if token is None else {"Authorization": f"Bearer {token}"})
            self.answered[whose] += 1
            case.validate_response(response, checks=CHECKS)
            if whose == "attempt" and response.status_code == HTTPStatus.CONFLICT:  # it is over
                a_job(self._parts.database)
                self._worker = a_started_worker(self._parts.database)

    def _strategy(
        self, operation: APIOperation, mode: GenerationMode, ids: dict[str, str]
    ) -> st.SearchStrategy[schemathesis.Case]:
        key = (operation.label, mode, *ids.items())
        if key not in self._strategies:
            self._strategies[key] = operation.as_strategy(mode, path_parameters=ids)
        return self._strategies[key]


@pytest.fixture
def requests(stored: Parts) -> Iterator[Requests]:
    """Requests to a control plane that refuses nobody for asking too often."""
    unlimited = {"requests_per_second": 1e9, "request_burst": 10**9, "failures_per_minute": 1e9}
    parts = replace(stored, settings=stored.settings.model_copy(update=unlimited))
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    with TestClient(create_app(parts), base_url="http://test/api/v1/", raise_server_exceptions=False) as api:
        api.headers["Authorization"] = f"Bearer {FIRST_TOKEN}"
        yield Requests(api, parts)


@pytest.mark.row(16, "2,000 requests, each at every scope: no 5xx, nothing that the OpenAPI document does not say")
@pytest.mark.parametrize("examples", [20, pytest.param(2000, marks=[pytest.mark.fault, pytest.mark.timeout(3600)])])
def test_whatever_is_sent_is_answered_as_documented(requests: Requests, examples: int, record_property) -> None:
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=st.composite(requests.draw)())
    def every(case: schemathesis.Case) -> None:
        requests.send(case)

    every()

    assert min(requests.answered.values()) >= examples
    record_property("runs", sum(requests.answered.values()))
