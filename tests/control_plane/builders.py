"""What tests of the control plane need ready made."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace

from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from fasterseg_core.config import DatasetName
from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.operator_specs import OperatorSpec
from services.client.schemas import JobKind, JsonObject, Scope
from services.control_plane.dispatcher import Dispatcher
from services.control_plane.parts import Parts
from services.storage.database import Database, database_now
from services.storage.documents import add_latency_table
from services.storage.tables import FIRST_PROJECT
from services.storage.worker_writes import succeed
from tests.storage.builders import RESOLUTION, SPACE, Worker, a_blob, a_latency_table, a_started_worker, a_success

SPECS: dict[str, JsonObject] = {
    "profile": {"space": SPACE, "resolution": RESOLUTION, "dataset": "camvid"},
    "search": {"space": SPACE, "resolution": RESOLUTION, "image_scale": 1.0, "dataset": "camvid"},
    "retrain": {"dataset": "camvid"},
    "evaluate": {"dataset": "camvid"},
    "export": {"resolution": RESOLUTION},
}

WHAT_SCOPES_MAY = [  # of `ask_for_what_scopes_may`
    (Scope.READ, [True, False, False, False]),
    (Scope.SUBMIT, [True, True, False, False]),
    (Scope.ADMIN, [True, True, True, False]),
    (Scope.OPERATOR, [True, True, True, True]),
]


def ask_for_what_scopes_may(ask: Callable[..., int]) -> list[int]:
    """The status of a request of each scope, from `read` to `operator`."""
    return [
        ask("GET", "jobs"),
        ask("POST", "jobs", json={"kind": "profile", "preset": "quick"}),
        ask("POST", "tokens", json={"name": "other", "scope": "read"}),
        ask("POST", "tokens", json={"name": "other", "scope": "read", "project": "elsewhere"}),
    ]


def a_dispatcher(parts: Parts, **changes: object) -> Dispatcher:
    """One of the instance `test`, on these parts."""
    values = {
        "database": parts.database,
        "ray": parts.ray,
        "instance": "test",
        "max_running_jobs": 2,
        "max_running_jobs_per_project": None,
        "cancel_grace_seconds": 60,
        "registry": CollectorRegistry(),
        "traces": parts.traces,
    }
    return Dispatcher(**{**values, **changes})


def submit(api: TestClient, kind: str, *, after: tuple[str, ...] = (), **values: object) -> JsonObject:
    """The accepted job."""
    response = api.post("jobs", json={"kind": kind, "spec": SPECS[kind], "after": list(after), **values})
    assert response.status_code == 202, response.text
    job: JsonObject = response.json()
    return job


def submitted(api: TestClient, kind: str, *, after: tuple[str, ...] = (), **values: object) -> str:
    return str(submit(api, kind, after=after, **values)["id"])


def a_stored_table(
    database: Database,
    *,
    dataset: DatasetName = DatasetName.CAMVID,
    without: tuple[OperatorSpec, ...] = (),
    engine: str = "onnxruntime",
) -> str:
    table = a_latency_table(dataset=dataset, without=without)
    table = LatencyTable(replace(table.fingerprint, engine=engine), table.rows)
    with database.writing.begin() as session:
        return add_latency_table(session, FIRST_PROJECT, table.to_document(), database_now(session))


def run_next(database: Database, kind: JobKind) -> None:
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        succeed(session, worker.submission_id, worker.token, a_success(kind))


def as_worker(worker: Worker) -> dict[str, str]:
    return {"Authorization": f"Bearer {worker.token}"}


def upload(api: TestClient, worker: Worker, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    assert api.put(f"blobs/{digest}", content=body, headers=as_worker(worker)).status_code == 204
    return digest


def stops_after(rounds: int) -> threading.Event:
    """An event that is set once it has been waited for this often."""

    class Countdown(threading.Event):
        remaining = rounds

        def wait(self, timeout: float | None = None) -> bool:
            self.remaining -= 1
            if self.remaining == 0:
                self.set()
            return self.is_set()

    return Countdown()
