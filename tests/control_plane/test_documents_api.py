"""Architectures, latency tables, estimates, artifacts and health over HTTP."""

import httpx
import pytest
from fastapi.testclient import TestClient

from services.client.schemas import JobKind
from services.control_plane.parts import Parts
from tests.control_plane.fakes import FakeProfiler, FakeRay
from tests.control_plane.test_attempts_api import upload
from tests.control_plane.test_submission import a_stored_table, run_next, submitted
from tests.storage.builders import (
    a_latency_table,
    a_started_worker,
    an_architecture,
    an_architecture_document,
)


def test_an_architecture_is_added_once(api: TestClient):
    first, second = (api.post("architectures", json={"document": an_architecture_document()}) for _ in range(2))

    assert first.status_code == 201
    assert first.json() == second.json()
    assert first.json()["id"] == an_architecture().digest
    assert len(api.get("architectures").json()["items"]) == 1


def test_an_architecture_knows_the_search_that_derived_it(api: TestClient, database):
    table = a_stored_table(database)
    search = submitted(api, "search", inputs={"latency_table": table})
    run_next(database, JobKind.SEARCH)

    record = api.get(f"architectures/{an_architecture(8).digest}").json()

    assert (record["job"], record["role"]) == (search, "teacher")


def test_an_architecture_is_drawn(api: TestClient):
    digest = api.post("architectures", json={"document": an_architecture_document()}).json()["id"]

    response = api.get(f"architectures/{digest}.svg")

    assert response.headers["content-type"] == "image/svg+xml"
    assert response.text.lstrip().startswith("<svg")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stem_ratio": "4"}, "document.stem_ratio"),
        ({"colour": "red"}, "document.colour"),
        ({"branches": [[{"operator": "pool"}]]}, "document.branches.0.0.operator"),
        ({"branches": []}, "document"),
    ],
)
def test_a_malformed_architecture_is_refused_by_its_part(api: TestClient, change: dict[str, object], field: str):
    response = api.post("architectures", json={"document": {**an_architecture_document(), **change}})

    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]


def test_latency_tables_are_listed_with_what_they_were_measured_on(api: TestClient, database):
    job = submitted(api, "profile")
    run_next(database, JobKind.PROFILE)

    (summary,) = api.get("latency-tables").json()["items"]

    assert (summary["id"], summary["job"]) == (a_latency_table().digest, job)
    assert summary["rows"] == len(a_latency_table().rows)
    assert summary["fingerprint"]["engine"] == "onnxruntime"


def test_estimates_are_the_profilers(api: TestClient, database, profiler: FakeProfiler):
    table = a_stored_table(database)
    digest = api.post("architectures", json={"document": an_architecture_document()}).json()["id"]

    response = api.post(
        f"latency-tables/{table}/estimates", json={"architectures": [digest, an_architecture_document(8)]}
    )

    assert [item["milliseconds"] for item in response.json()["items"]] == [2.0, 2.0]
    assert profiler.requests[0].url.path == f"/latency-tables/{table}/estimates"


def test_estimates_are_unavailable_while_the_profiler_is_away(api: TestClient, database, profiler: FakeProfiler):
    table = a_stored_table(database)
    profiler.is_away = True

    response = api.post(f"latency-tables/{table}/estimates", json={"architectures": [an_architecture_document()]})

    assert response.status_code == 503
    assert response.json()["detail"] == "the profiler does not answer"


def test_a_missing_operator_is_named(api: TestClient, database, profiler: FakeProfiler):
    table = a_stored_table(database)
    detail = "latency table 123 has no entry for 'conv 32->32 8x16 /1'"
    profiler.answer = httpx.Response(422, json={"title": "Missing", "status": 422, "detail": detail})

    response = api.post(f"latency-tables/{table}/estimates", json={"architectures": [an_architecture_document()]})

    assert response.status_code == 422
    assert response.json()["detail"] == detail


def test_estimates_of_an_unknown_table_are_not_found(api: TestClient):
    path = f"latency-tables/{'0' * 64}/estimates"

    assert api.post(path, json={"architectures": [an_architecture_document()]}).status_code == 404


def test_an_artifact_is_served_with_headers_that_keep_it_harmless(api: TestClient, database):
    submitted(api, "profile")
    digest = upload(api, a_started_worker(database), b"<script>")

    response = api.get(f"artifacts/{digest}")

    assert response.content == b"<script>"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-length"] == "8"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_damaged_artifact_is_never_served(api: TestClient, database, parts: Parts):
    submitted(api, "profile")
    digest = upload(api, a_started_worker(database), b"whole")
    (parts.settings.state_folder / "blobs" / digest[:2] / digest).write_bytes(b"whale")

    response = api.get(f"artifacts/{digest}")

    assert response.status_code == 410
    assert response.json()["title"] == "Corrupt blob"


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
