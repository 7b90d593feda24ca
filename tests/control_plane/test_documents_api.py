"""Architectures, latency tables, estimates and artifacts over HTTP."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import IO

import httpx
import pytest
from fastapi.testclient import TestClient

from services.client.schemas import JobKind
from services.control_plane.app import create_app
from services.control_plane.parts import Parts
from services.storage.database import Database
from services.storage.documents import add_calibration
from services.storage.errors import InvalidRequest
from services.storage.folder_store import FolderStore
from services.storage.tables import FIRST_PROJECT, LatencyTableRow
from services.storage.tokens import keep_first_token
from services.storage.worker_writes import add_checkpoint
from tests.control_plane.builders import a_stored_table, run_next, submitted, upload
from tests.control_plane.conftest import FIRST_TOKEN
from tests.control_plane.fakes import FakeProfiler
from tests.storage.builders import (
    a_checkpoint,
    a_latency_table,
    a_latency_table_document,
    a_started_worker,
    a_trained_job,
    an_architecture,
    an_architecture_document,
    an_artifact,
)

ROW = "stem 3->32 64x128 /8"


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


def added_tables(api: TestClient, database: Database, count: int, seconds_between: float) -> list[str]:
    """The ids of tables that were added so long after one another."""
    document, tables = a_latency_table_document(), []
    for number in range(count):
        fingerprint = document["fingerprint"] | {"threads": number + 1}
        answer = api.post("latency-tables", json={"document": document | {"fingerprint": fingerprint}})
        tables.append(answer.json()["id"])
        with database.writing.begin() as session:
            added = datetime(2026, 11, 27, tzinfo=UTC) + timedelta(seconds=number * seconds_between)
            session.get_one(LatencyTableRow, tables[-1]).created_at = added
    return tables


def pages(api: TestClient, path: str, limit: int) -> list[list[str]]:
    """The ids on each page of a list."""
    pages, cursor = [], None
    while True:
        page = api.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {})).json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return pages


def test_documents_are_listed_page_by_page_the_newest_first(api: TestClient, database: Database):
    first, second, third = added_tables(api, database, 3, seconds_between=1.0)

    assert pages(api, "latency-tables", limit=2) == [[third, second], [first]]


def test_documents_of_the_same_moment_are_listed_once_each(api: TestClient, database: Database):
    first, second, third = sorted(added_tables(api, database, 3, seconds_between=0.0))

    assert pages(api, "latency-tables", limit=2) == [[first, second], [third]]


def test_a_cursor_that_is_none_of_the_list_is_refused(api: TestClient):
    answer = api.get("architectures", params={"cursor": 64 * "0"})

    assert (answer.status_code, answer.json()["detail"]) == (422, "cursor: is none of this list: begin without one")


def test_a_latency_table_is_added_once(api: TestClient):
    first, second = (api.post("latency-tables", json={"document": a_latency_table_document()}) for _ in range(2))

    assert first.status_code == 201
    assert first.json() == second.json()
    assert (first.json()["id"], first.json()["job"]) == (a_latency_table().digest, None)
    assert len(api.get("latency-tables").json()["items"]) == 1


def test_an_added_table_comes_back_as_it_was_sent(api: TestClient):
    table = api.post("latency-tables", json={"document": a_latency_table_document()}).json()["id"]

    assert api.get(f"latency-tables/{table}").json() == a_latency_table_document()


def test_quarantined_rows_are_counted(api: TestClient):
    document = a_latency_table_document()
    document["rows"][ROW].update({"state": "quarantined", "reason": "unstable"})

    summary = api.post("latency-tables", json={"document": document}).json()

    assert (summary["rows"], summary["quarantined"]) == (len(document["rows"]), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"milliseconds": math.nan}, "milliseconds nan must be finite"),
        ({"milliseconds": -1.0}, "milliseconds -1.0 must be finite and not negative"),
        ({"milliseconds": math.inf}, "milliseconds inf must be finite"),
        ({"milliseconds": None}, "milliseconds None is not a number"),
        ({"lower_quartile": 3.0}, "lower_quartile 3.0 is above upper_quartile 1.0"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_a_malformed_row_is_refused_by_its_name(api: TestClient, change: dict[str, object], message: str):
    document = a_latency_table_document()
    document["rows"][ROW].update(change)

    body = json.dumps({"document": document})  # with NaN and Infinity, which JSON lacks

    response = api.post("latency-tables", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert f"row {ROW!r}: {message}" in response.json()["errors"][0]["message"]
    assert api.get("latency-tables").json()["items"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "document.fingerprint.colour"),
        ({"threads": "1"}, "document.fingerprint.threads"),
        ({"resolution": {"height": 64}}, "document.fingerprint.resolution.width"),
    ],
)
def test_a_malformed_fingerprint_is_refused_by_its_field(api: TestClient, change: dict[str, object], field: str):
    document = a_latency_table_document()
    document["fingerprint"].update(change)

    response = api.post("latency-tables", json={"document": document})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_estimates_are_the_profilers(api: TestClient, database, profiler: FakeProfiler):
    table = a_stored_table(database)
    digest = api.post("architectures", json={"document": an_architecture_document()}).json()["id"]

    response = api.post(
        f"latency-tables/{table}/estimates", json={"architectures": [digest, an_architecture_document(8)]}
    )

    assert [item["milliseconds"] for item in response.json()["items"]] == [2.0, 2.0]
    assert profiler.requests[0].url.path == f"/latency-tables/{table}/estimates"


def test_the_profiler_is_asked_under_the_requests_id(api: TestClient, database, profiler: FakeProfiler):
    response = api.post(
        f"latency-tables/{a_stored_table(database)}/estimates", json={"architectures": [an_architecture_document()]}
    )

    assert profiler.requests[0].headers["X-Request-Id"] == response.headers["X-Request-Id"]


def test_estimates_are_corrected_where_the_table_has_a_calibration(api: TestClient, database):
    table = a_stored_table(database)
    calibration = {"slope": 1.5, "operator_ms": 0.25, "fixed_ms": 1.0, "fitted_on": ["a" * 64], "held_out": None}
    with database.writing.begin() as session:
        add_calibration(session, FIRST_PROJECT, table, calibration)

    response = api.post(f"latency-tables/{table}/estimates", json={"architectures": [an_architecture_document()]})

    (item,) = response.json()["items"]
    assert (item["milliseconds"], item["calibrated_ms"]) == (2.0, 1.5 * 2.0 + 0.25 * 4 + 1.0)
    assert api.get(f"latency-tables/{table}/calibration").json() == {"calibration": calibration}


def test_a_calibration_is_never_replaced(api: TestClient, database):
    table = a_stored_table(database)
    first = {"slope": 1.0, "operator_ms": 0.0, "fixed_ms": 0.0, "fitted_on": [], "held_out": None}
    with database.writing.begin() as session:
        add_calibration(session, FIRST_PROJECT, table, first)
        add_calibration(session, FIRST_PROJECT, table, first | {"slope": 2.0})

    assert api.get(f"latency-tables/{table}/calibration").json() == {"calibration": first}


def test_a_table_without_a_calibration_says_so(api: TestClient, database):
    assert api.get(f"latency-tables/{a_stored_table(database)}/calibration").json() == {"calibration": None}
    assert api.get(f"latency-tables/{'0' * 64}/calibration").status_code == 404


def test_a_calibration_out_of_range_is_refused_by_name(database):
    table = a_stored_table(database)
    wrong = {"slope": -1.0, "operator_ms": 0.0, "fixed_ms": 0.0, "fitted_on": [], "held_out": None}

    with database.writing.begin() as session, pytest.raises(InvalidRequest, match="slope is -1.0"):
        add_calibration(session, FIRST_PROJECT, table, wrong)


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


@pytest.mark.parametrize(("sent", "kind"), [("x", "id"), (3, "document")])
def test_what_is_neither_an_id_nor_an_architecture_is_named(api: TestClient, sent: object, kind: str):
    response = api.post(f"latency-tables/{'0' * 64}/estimates", json={"architectures": [sent]})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [f"architectures.0.{kind}"]


def test_estimates_of_an_unknown_table_are_not_found(api: TestClient):
    path = f"latency-tables/{'0' * 64}/estimates"

    assert api.post(path, json={"architectures": [an_architecture_document()]}).status_code == 404


def a_kept_checkpoint(api: TestClient, database, body: bytes) -> str:
    """The digest of a blob that a job names."""
    submitted(api, "profile")
    worker = a_started_worker(database)
    digest = upload(api, worker, body)
    with database.writing.begin() as session:
        add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(body))
    return digest


def test_a_blob_that_no_job_names_is_nobodys(api: TestClient, database):
    submitted(api, "profile")

    assert api.get(f"artifacts/{upload(api, a_started_worker(database), b'unnamed')}").status_code == 404


def test_an_artifact_is_served_with_headers_that_keep_it_harmless(api: TestClient, database):
    digest = a_kept_checkpoint(api, database, b"<script>")

    response = api.get(f"artifacts/{digest}")

    assert response.content == b"<script>"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-length"] == "8"
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_an_artifact_is_a_file_of_its_name(api: TestClient, database, parts: Parts):
    a_trained_job(database, parts.store)

    headers = api.get(f"artifacts/{an_artifact().sha256}").headers

    assert headers["content-disposition"] == 'attachment; filename="network.safetensors"'


class Watched(FolderStore):
    """A store that notes how many connections to the database are held while a blob of it is read."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.settings.state_folder / "blobs")
        self._engine = parts.database.engine
        self.held: list[int] = []

    def open(self, sha256: str) -> IO[bytes]:
        self.held.append(self._engine.pool.checkedout())
        return super().open(sha256)


def test_no_connection_is_held_while_the_store_is_read(parts: Parts):
    store = Watched(parts)
    a_trained_job(parts.database, store)
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)

    with TestClient(create_app(replace(parts, store=store)), base_url="http://test/api/v1/") as api:
        shown = {"Authorization": f"Bearer {FIRST_TOKEN}"}
        assert api.get(f"artifacts/{an_artifact().sha256}", headers=shown).status_code == 200

    assert store.held == [0]


def test_a_damaged_artifact_is_never_served(api: TestClient, database, parts: Parts):
    digest = a_kept_checkpoint(api, database, b"whole")
    (parts.settings.state_folder / "blobs" / digest[:2] / digest).write_bytes(b"whale")

    response = api.get(f"artifacts/{digest}")

    assert response.status_code == 410
    assert response.json()["title"] == "Corrupt blob"
