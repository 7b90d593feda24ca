import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from fasterseg_core.latency_table import LatencyTable, RowState, estimate
from services.client.client import FasterSegClient
from services.profiler.documents import Documents
from services.profiler.serve_app import create_app
from tests.builders import a_fingerprint, a_latency_row, a_latency_table, an_architecture

TABLE = a_latency_table()
ARCHITECTURE = an_architecture()
ID = TABLE.digest
TOKEN = "what the profiler and the control plane share"


class FakeControlPlane:
    """Holds documents and counts how often each is asked for."""

    def __init__(self, *tables: LatencyTable) -> None:
        self.answers: dict[str, dict] = {
            f"/api/v1/architectures/{ARCHITECTURE.digest}": {
                "id": ARCHITECTURE.digest,
                "document": ARCHITECTURE.to_document(),
                "job": None,
                "role": None,
                "created_at": "2026-11-23T00:00:00Z",
            }
        } | {f"/api/v1/latency-tables/{table.digest}": dict(table.to_document()) for table in tables}
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path in self.answers:
            return httpx.Response(200, json=self.answers[request.url.path])
        problem = {"title": "Not Found", "status": 404, "detail": f"no {request.url.path}"}
        return httpx.Response(404, json=problem)


def an_app(answer: Callable[[httpx.Request], httpx.Response]) -> TestClient:
    client = FasterSegClient("http://control-plane", transport=httpx.MockTransport(answer))
    return TestClient(create_app(Documents(client), TOKEN), headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def control_plane() -> FakeControlPlane:
    return FakeControlPlane(TABLE)


@pytest.fixture
def app(control_plane: FakeControlPlane) -> Iterator[TestClient]:
    with an_app(control_plane) as client:
        yield client


def post(app: TestClient, *architectures: object, table: str = ID) -> httpx.Response:
    return app.post(f"/latency-tables/{table}/estimates", json={"architectures": architectures})


def assert_problem(response: httpx.Response, status: int, detail: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in response.json()["detail"]


def test_health_needs_no_control_plane(app: TestClient, control_plane: FakeControlPlane) -> None:
    assert app.get("/health").json() == {"status": "ok"}
    assert control_plane.asked == []


def test_estimates_documents_and_ids_in_order(app: TestClient) -> None:
    other = an_architecture("conv 8 2, conv 8 2")

    items = post(app, ARCHITECTURE.digest, other.to_document()).json()["items"]

    expected = [estimate(architecture, TABLE) for architecture in (ARCHITECTURE, other)]
    assert [item["milliseconds"] for item in items] == [latency.milliseconds for latency in expected]
    assert [item["parts"] for item in items] == [latency.parts for latency in expected]


def test_documents_are_fetched_once(app: TestClient, control_plane: FakeControlPlane) -> None:
    post(app, ARCHITECTURE.digest)
    post(app, ARCHITECTURE.digest)

    assert len(control_plane.asked) == 2


def test_a_missing_operator_is_named(app: TestClient) -> None:
    outside = an_architecture("conv 8 7, conv 8 2")

    assert_problem(post(app, outside.to_document()), 409, "has no entry for 'conv 16->56 8x12 /1'")


def test_a_quarantined_operator_is_named_with_its_reason() -> None:
    spec = next(iter(TABLE.rows))
    quarantined = a_latency_row(state=RowState.QUARANTINED, reason="unstable")
    table = LatencyTable(a_fingerprint(), {**TABLE.rows, spec: quarantined})
    app = an_app(FakeControlPlane(table))

    assert_problem(post(app, ARCHITECTURE.digest, table=table.digest), 409, f"entry for {spec.key!r}: unstable")


def test_a_document_that_is_no_architecture_is_refused_by_its_place(app: TestClient) -> None:
    response = post(app, ARCHITECTURE.to_document(), {"stem_ratio": 2, "branches": []})

    assert_problem(response, 422, "architectures.1: ValueError: branches must be one or two")
    assert response.json()["errors"][0]["field"] == "architectures.1"


def test_an_unknown_field_is_refused(app: TestClient) -> None:
    response = app.post(f"/latency-tables/{ID}/estimates", json={"architectures": [ARCHITECTURE.digest], "more": 1})

    assert_problem(response, 422, "cannot be read")
    assert response.json()["errors"][0]["field"] == "body.more"


def test_an_unknown_table_is_not_found(app: TestClient) -> None:
    assert_problem(post(app, ARCHITECTURE.digest, table="0" * 64), 404, "no /api/v1/latency-tables/000")


def test_a_table_under_another_tables_id_is_refused() -> None:
    control_plane = FakeControlPlane(TABLE)
    control_plane.answers[f"/api/v1/latency-tables/{'0' * 64}"] = dict(TABLE.to_document())

    assert_problem(post(an_app(control_plane), ARCHITECTURE.digest, table="0" * 64), 502, TABLE.digest)


def test_a_control_plane_that_is_away_can_be_asked_again() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    response = post(an_app(away), ARCHITECTURE.digest)

    assert_problem(response, 503, "the control plane does not answer")
    assert response.headers["retry-after"] == "5"


def read(app: TestClient) -> dict[tuple[str, ...], float]:
    """Each sample under its name and the values of its labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(app.get("/metrics").text)
        for sample in family.samples
    }


def test_estimates_and_documents_are_counted(app: TestClient) -> None:
    post(app, ARCHITECTURE.digest)
    post(app, ARCHITECTURE.digest, ARCHITECTURE.to_document(), ARCHITECTURE.to_document())

    samples = read(app)

    assert (samples["fasterseg_estimate_batch_count",], samples["fasterseg_estimate_batch_sum",]) == (2, 4)
    assert samples["fasterseg_estimate_batch_bucket", "1.0"] == 1
    assert samples["fasterseg_estimate_seconds_count",] == 2
    assert samples["fasterseg_documents_read_total", "miss", "latency_table"] == 1
    assert samples["fasterseg_documents_read_total", "hit", "latency_table"] == 1
    assert samples["fasterseg_table_rows_total", "measured"] == len(TABLE.rows)
    assert samples["fasterseg_table_rows_total", "quarantined"] == 0
    assert samples["fasterseg_http_request_seconds_count", "POST", "/latency-tables/{table}/estimates", "200"] == 2


def test_metrics_are_for_who_shows_the_token(app: TestClient) -> None:
    assert app.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 401


def test_a_request_keeps_the_id_under_which_the_control_plane_has_it(app: TestClient) -> None:
    response = app.get(f"/latency-tables/{'0' * 64}", headers={"X-Request-Id": "4f1d2c3b5a697887"})

    assert response.json()["request_id"] == response.headers["X-Request-Id"] == "4f1d2c3b5a697887"


def test_a_table_is_shown_as_it_was_stored(app: TestClient) -> None:
    assert LatencyTable.from_document(app.get(f"/latency-tables/{ID}").json()).digest == ID


def test_a_row_is_shown_by_its_key(app: TestClient) -> None:
    spec, row = next(iter(TABLE.rows.items()))

    response = app.get(f"/latency-tables/{ID}/rows", params={"key": spec.key})

    assert response.json()["milliseconds"] == row.milliseconds


def test_a_missing_row_is_named(app: TestClient) -> None:
    key = "conv 1->1 1x1 /1"

    assert_problem(app.get(f"/latency-tables/{ID}/rows", params={"key": key}), 409, f"no entry for {key!r}")


def test_a_key_that_is_none_is_refused(app: TestClient) -> None:
    assert_problem(app.get(f"/latency-tables/{ID}/rows", params={"key": "x"}), 422, "is not an operator key")


def test_the_application_carries_no_torch() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'onnxruntime', 'openvino')))"

    result = subprocess.run([sys.executable, "-c", f"{blocked}; import services.profiler.serve_app"], check=False)

    assert result.returncode == 0
