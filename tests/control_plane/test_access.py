"""Who is let in, and what of which project he sees: every route, with every kind of token."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import exists, select, update
from sqlalchemy.orm import aliased

from services.client.schemas import JobKind, Scope
from services.control_plane.app import PREFIX, create_app
from services.control_plane.parts import Parts
from services.control_plane.ray_jobs import RayState
from services.storage.artifacts import keep_blob
from services.storage.attempts import secret_digest
from services.storage.database import Database, database_now
from services.storage.documents import add_architecture, add_calibration, add_latency_table
from services.storage.projects import narrow
from services.storage.tables import FIRST_PROJECT, JobRow, TokenRow
from services.storage.tokens import keep_first_token
from services.storage.worker_writes import acknowledge_stop, succeed
from tests.control_plane.builders import WHAT_SCOPES_MAY, ask_for_what_scopes_may
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.control_plane.fakes import FakeRay
from tests.storage.builders import (
    a_body,
    a_checkpoint,
    a_job,
    a_latency_table,
    a_latency_table_document,
    a_started_worker,
    a_success,
    a_trained_job,
    an_architecture_document,
    an_artifact,
)

OPEN = {  # the last asks for a ticket
    "GET /api/v1/health",
    "GET /api/v1/health/live",
    "POST /api/v1/attempts/{submission_id}/redeem",
}
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/static-offline-docs"}  # open, too
WORKER = "the attempt's own token"
NEEDED: dict[str, Scope | str] = {  # what every other route asks for
    "GET /metrics": Scope.READ,
    "GET /api/v1/jobs": Scope.READ,
    "POST /api/v1/jobs": Scope.SUBMIT,
    "GET /api/v1/jobs/{job_id}": Scope.READ,
    "POST /api/v1/jobs/{job_id}/cancel": Scope.SUBMIT,
    "POST /api/v1/jobs/{job_id}/pause": Scope.SUBMIT,
    "POST /api/v1/jobs/{job_id}/resume": Scope.SUBMIT,
    "GET /api/v1/jobs/{job_id}/events": Scope.READ,
    "GET /api/v1/jobs/{job_id}/events/stream": Scope.READ,
    "GET /api/v1/jobs/{job_id}/logs": Scope.READ,
    "POST /api/v1/plans": Scope.READ,
    "GET /api/v1/architectures": Scope.READ,
    "POST /api/v1/architectures": Scope.SUBMIT,
    "GET /api/v1/architectures/{architecture}": Scope.READ,
    "GET /api/v1/architectures/{architecture}.svg": Scope.READ,
    "GET /api/v1/latency-tables": Scope.READ,
    "POST /api/v1/latency-tables": Scope.SUBMIT,
    "GET /api/v1/latency-tables/{table}": Scope.READ,
    "GET /api/v1/latency-tables/{table}/calibration": Scope.READ,
    "POST /api/v1/latency-tables/{table}/estimates": Scope.READ,
    "GET /api/v1/artifacts/{sha256}": Scope.READ,
    "PUT /api/v1/blobs/{sha256}": WORKER,
    "POST /api/v1/attempts/{submission_id}/heartbeat": WORKER,
    "POST /api/v1/attempts/{submission_id}/events": WORKER,
    "POST /api/v1/attempts/{submission_id}/checkpoint": WORKER,
    "POST /api/v1/attempts/{submission_id}/succeed": WORKER,
    "POST /api/v1/attempts/{submission_id}/fail": WORKER,
    "POST /api/v1/attempts/{submission_id}/stopped": WORKER,
    "POST /api/v1/tokens": Scope.ADMIN,
    "GET /api/v1/tokens": Scope.ADMIN,
    "DELETE /api/v1/tokens/{token_id}": Scope.ADMIN,
    "GET /api/v1/projects": Scope.READ,
    "GET /api/v1/projects/{name}": Scope.READ,
    "PUT /api/v1/projects/{name}": Scope.OPERATOR,
}
BODIES: dict[str, object] = {
    "POST /api/v1/jobs": {"kind": "profile", "preset": "quick"},
    "POST /api/v1/plans": {"kind": "profile", "preset": "quick"},
    "POST /api/v1/architectures": {"document": an_architecture_document()},
    "POST /api/v1/latency-tables": {"document": a_latency_table_document()},
    "POST /api/v1/latency-tables/{table}/estimates": {"architectures": [an_architecture_document()]},
    "POST /api/v1/attempts/{submission_id}/heartbeat": {},
    "POST /api/v1/attempts/{submission_id}/events": {"items": []},
    "POST /api/v1/attempts/{submission_id}/checkpoint": a_checkpoint(b"state").model_dump(mode="json"),
    "POST /api/v1/attempts/{submission_id}/succeed": a_success(JobKind.RETRAIN).model_dump(mode="json"),
    "POST /api/v1/attempts/{submission_id}/fail": {"reason": {"failure": "user_error", "message": "no"}},
    "POST /api/v1/tokens": {"name": "another", "scope": "read"},
    "PUT /api/v1/projects/{name}": {"max_hours": 0},
}
MADE = {  # where there is nothing yet
    "POST /api/v1/jobs": 202,
    "POST /api/v1/architectures": 201,
    "POST /api/v1/latency-tables": 201,
    "POST /api/v1/tokens": 201,
}
ROW = pytest.mark.row(18, "every route with no, a wrong, revoked, expired, foreign, low or old token: as declared")
NOBODY = "fasterseg-nobody"
Ask = Callable[..., int]


def routes(app: FastAPI) -> set[str]:
    """Every route that the application has, also those that its documentation leaves out."""
    found = set()
    for route in app.routes:
        included = getattr(route, "original_router", None)
        for inner in included.routes if included is not None else [route]:
            path = inner.path if included is None else PREFIX + inner.path
            if path not in DOCUMENTATION:
                found |= {f"{method} {path}" for method in inner.methods}
    return found


@pytest.fixture
def ask(api: TestClient) -> Ask:
    """The status of a request with another token."""

    def status(token: str, method: str, path: str, **values: object) -> int:
        return api.request(method, path, headers={"Authorization": f"Bearer {token}"}, **values).status_code

    return status


@pytest.fixture
def token(api: TestClient) -> Callable[..., str]:
    """The secret of a new token."""

    def make(scope: Scope = Scope.SUBMIT, **values: object) -> str:
        made = api.post("tokens", json={"name": "a test", "scope": scope, **values})
        assert made.status_code == 201, made.text
        return made.json()["secret"]

    return make


@ROW
def test_every_route_says_what_it_asks_for(parts: Parts) -> None:
    assert routes(create_app(parts)) == NEEDED.keys() | OPEN


@ROW
@pytest.mark.parametrize(
    "shown",
    ["nothing", "a wrong one", "a revoked one", "an expired one", "of another project", "too low", "of an old attempt"],
)
def test_a_token_that_does_not_suffice_is_refused_everywhere_and_changes_nothing(
    api: TestClient, token: Callable[..., str], parts: Parts, shown: str, record_property
) -> None:
    job = a_trained_job(parts.database, parts.store)
    a_job(parts.database)
    worker = a_started_worker(parts.database)
    ids = {
        "job_id": job,
        "submission_id": worker.submission_id,
        "name": FIRST_PROJECT,
        "token_id": api.post("tokens", json={"name": "unused", "scope": "read"}).json()["record"]["id"],
        "sha256": an_artifact().sha256,
        "table": api.post("latency-tables", json={"document": a_latency_table(milliseconds=2.0).to_document()}).json()[
            "id"
        ],
        "architecture": api.post("architectures", json={"document": an_architecture_document(ratio=8)}).json()["id"],
    }
    match shown:
        case "a revoked one":
            made = api.post("tokens", json={"name": "leaked", "scope": "admin"}).json()
            api.delete(f"tokens/{made['record']['id']}")
            secret = made["secret"]
        case "an expired one":
            secret = token(Scope.ADMIN, days=1)
            expire(parts.database, secret)
        case "of another project":
            secret = token(Scope.ADMIN, project="elsewhere")
        case "of an old attempt":
            secret = worker.token
            with parts.database.writing.begin() as session:
                acknowledge_stop(session, worker.submission_id, worker.token)
        case _:
            secret = NOBODY
    below = {Scope.SUBMIT: token(Scope.READ), Scope.ADMIN: token(Scope.SUBMIT), Scope.OPERATOR: token(Scope.ADMIN)}
    routes = [route for route in NEEDED if shown != "too low" or NEEDED[route] in below]
    before = seen(api)

    for route in routes:
        method, path = route.format(**ids).split()
        shows = below[NEEDED[route]] if shown == "too low" else secret
        headers = {"Authorization": "" if shown == "nothing" else f"Bearer {shows}"}
        answer = api.request(method, f"http://test{path}", json=BODIES.get(route), headers=headers)
        assert answer.status_code == declared(shown, route), (route, answer.text)
        assert answer.headers.get("WWW-Authenticate") == ("Bearer" if answer.status_code == 401 else None)
        if answer.is_success and route != "GET /metrics":
            assert [value for name, value in ids.items() if name != "name" and value in answer.text] == [], (
                route,
                answer.text,
            )

    assert seen(api) == before
    record_property("runs", len(routes))


def seen(api: TestClient) -> list[object]:
    """What there is in the project, but for when its tokens were used."""
    tokens = [(item["id"], item["revoked_at"]) for item in api.get("tokens").json()["items"]]
    return [tokens, *(api.get(path).json() for path in ("jobs", "latency-tables", "architectures", "projects/default"))]


def expire(database: Database, secret: str) -> None:
    """Lets a token have expired a second ago."""
    with database.writing.begin() as session:
        ended = database_now(session) - timedelta(seconds=1)
        session.execute(update(TokenRow).where(TokenRow.secret_hash == secret_digest(secret)).values(expires_at=ended))


def declared(shown: str, route: str) -> int:
    """The status of a route for a token that does not suffice; one of another project may something there."""
    if shown == "too low":
        return 403
    if shown == "of an old attempt":
        return 409
    if shown != "of another project" or NEEDED[route] is WORKER:
        return 401
    if "projects/" in route:
        return 403
    return 404 if "{" in route else MADE.get(route, 200)


def test_a_first_token_that_can_be_guessed_is_refused(database: Database) -> None:
    with database.writing.begin() as session, pytest.raises(ValueError, match="at least 16 characters"):
        keep_first_token(session, "")


@pytest.mark.parametrize("path", ["jobs", "health", "nowhere", "http://test/docs"])
def test_an_answer_is_stored_by_nobody_and_taken_for_nothing_else(api: TestClient, path: str) -> None:
    headers = api.get(path).headers

    assert headers["cache-control"] == "no-store"
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


def test_a_secret_of_nobody_is_refused(ask: Ask) -> None:
    assert ask(NOBODY, "GET", "jobs") == 401
    assert ask(NOBODY, "POST", "jobs", json={"kind": "profile"}) == 401
    assert ask(NOBODY, "GET", "http://test/metrics") == 401


def test_a_token_is_shown_once_and_kept_as_a_digest(api: TestClient, database: Database) -> None:
    made = api.post("tokens", json={"name": "release gate", "scope": "submit", "days": 30}).json()
    listed = api.get("tokens").text

    with database.reading() as session:
        row = session.scalars(select(TokenRow).where(TokenRow.id == made["record"]["id"])).one()
    assert row.secret_hash == secret_digest(made["secret"])
    assert made["secret"] not in listed
    assert row.secret_hash not in listed
    assert "release gate" in listed


@pytest.mark.parametrize(("scope", "may"), WHAT_SCOPES_MAY)
def test_a_scope_may_what_those_before_it_may(
    ask: Ask, token: Callable[..., str], scope: Scope, may: list[bool]
) -> None:
    statuses = ask_for_what_scopes_may(partial(ask, token(scope)))

    assert [status < 300 for status in statuses] == may
    assert all(status < 300 or status == 403 for status in statuses)


def test_an_administrator_gives_nothing_that_he_has_not(ask: Ask, token: Callable[..., str]) -> None:
    asked = {"name": "other", "scope": "operator"}

    assert ask(token(Scope.ADMIN), "POST", "tokens", json=asked) == 403


def test_jobs_and_tokens_say_whose_token_made_them(api: TestClient, database: Database) -> None:
    (first,) = api.get("tokens").json()["items"]
    made = api.post("tokens", json={"name": "release gate", "scope": "submit"}).json()
    gate = {"Authorization": f"Bearer {made['secret']}"}
    job = api.post("jobs", json={"kind": "profile", "preset": "quick"}, headers=gate).json()
    a_job(database)

    assert (first["created_by"], made["record"]["created_by"]) == (None, first["id"])
    assert api.get(f"jobs/{job['id']}").json()["created_by"] == made["record"]["id"]
    assert [listed["created_by"] for listed in api.get("jobs").json()["items"]] == [None, made["record"]["id"]]


def test_a_submission_that_is_repeated_is_still_the_first_users(api: TestClient, token: Callable[..., str]) -> None:
    body, key = {"kind": "profile", "preset": "quick"}, {"Idempotency-Key": "nightly"}
    first = api.post("jobs", json=body, headers=key).json()

    again = api.post("jobs", json=body, headers=key | {"Authorization": f"Bearer {token()}"}).json()

    assert again == first


def test_a_token_does_not_outlive_its_maker(api: TestClient, token: Callable[..., str]) -> None:
    made = {"name": "other", "scope": "read", "days": 90}

    answer = api.post("tokens", json=made, headers={"Authorization": f"Bearer {token(Scope.ADMIN, days=1)}"})

    ends = [item["expires_at"] for item in api.get("tokens").json()["items"] if item["expires_at"]]
    assert answer.json()["record"]["expires_at"] == min(ends) == max(ends)


def test_an_administrator_revokes_nobody_above_him(api: TestClient, ask: Ask, token: Callable[..., str]) -> None:
    first = api.get("tokens").json()["items"][0]

    assert first["scope"] == "operator"
    assert ask(token(Scope.ADMIN), "DELETE", f"tokens/{first['id']}") == 403
    assert secret_digest(FIRST_TOKEN)[:12] not in api.get("tokens").text


def test_a_revoked_token_is_refused_at_once(api: TestClient, ask: Ask) -> None:
    made = api.post("tokens", json={"name": "leaked", "scope": "admin"}).json()
    assert ask(made["secret"], "GET", "jobs") == 200

    assert api.delete(f"tokens/{made['record']['id']}").json()["revoked_at"] is not None

    assert ask(made["secret"], "GET", "jobs") == 401


def test_a_token_expires(ask: Ask, token: Callable[..., str], database: Database) -> None:
    secret = token(days=1)
    assert ask(secret, "GET", "jobs") == 200

    expire(database, secret)

    assert ask(secret, "GET", "jobs") == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_last_use_of_a_token_is_noted(api: TestClient, ask: Ask, token: Callable[..., str], method: str) -> None:
    secret = token(Scope.ADMIN)
    assert api.get("tokens").json()["items"][-1]["last_used_at"] is None

    ask(secret, method, "jobs", **({"json": {"kind": "profile"}} if method == "POST" else {}))

    assert api.get("tokens").json()["items"][-1]["last_used_at"] is not None


def test_a_project_sees_nothing_of_another(
    api: TestClient, ask: Ask, token: Callable[..., str], parts: Parts, ray: FakeRay
) -> None:
    job = api.post("jobs", json={"kind": "profile", "preset": "quick"}).json()["id"]
    worker = a_started_worker(parts.database)
    ray.say(worker.submission_id, RayState.SUCCEEDED)
    success = a_success(JobKind.PROFILE).model_copy(update={"artifacts": [an_artifact()]})
    keep_blob(parts.database, parts.store, success.artifacts[0].sha256, a_body())
    with parts.database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, success)
        architecture = add_architecture(session, FIRST_PROJECT, an_architecture_document(), database_now(session))
    table = api.get(f"jobs/{job}").json()["latency_table"]
    stranger = token(Scope.OPERATOR, project="elsewhere")
    paths = [
        f"jobs/{job}",
        f"jobs/{job}/events",
        f"jobs/{job}/events/stream",
        f"jobs/{job}/logs",
        f"latency-tables/{table}",
        f"latency-tables/{table}/calibration",
        f"architectures/{architecture}",
        f"artifacts/{success.artifacts[0].sha256}",
    ]

    assert [api.get(path).status_code for path in paths] == [200] * len(paths)
    assert [ask(stranger, "GET", path) for path in paths] == [404] * len(paths)
    assert [ask(stranger, "POST", f"jobs/{job}/{what}") for what in ("cancel", "pause", "resume")] == [404] * 3
    assert ask(stranger, "POST", f"latency-tables/{table}/estimates", json={"architectures": [architecture]}) == 404
    assert ask(stranger, "POST", "jobs", json={"kind": "search", "preset": "quick", "after": [job]}) == 422
    for listing in ("jobs", "latency-tables", "architectures"):
        answer = api.get(listing, headers={"Authorization": f"Bearer {stranger}"})
        assert answer.json()["items"] == []
    assert ask(stranger, "DELETE", f"tokens/{api.get('tokens').json()['items'][0]['id']}") == 404


def test_what_two_projects_send_alike_belongs_to_both(
    api: TestClient, ask: Ask, token: Callable[..., str], database: Database
) -> None:
    stranger = token(project="elsewhere")
    document = an_architecture_document()
    ids = {api.post("architectures", json={"document": document}).json()["id"]}
    assert ask(stranger, "POST", "architectures", json={"document": document}) == 201
    with database.writing.begin() as session:
        ids.add(add_architecture(session, "third", document, database_now(session)))
        add_latency_table(session, "third", a_latency_table_document(), database_now(session))

    assert len(ids) == 1
    assert ask(stranger, "GET", f"architectures/{ids.pop()}") == 200


def test_what_a_project_measured_corrects_its_own_estimates_alone(
    api: TestClient, token: Callable[..., str], database: Database
) -> None:
    other = {"Authorization": f"Bearer {token(project='elsewhere')}"}
    document = a_latency_table_document()
    table = api.post("latency-tables", json={"document": document}).json()["id"]
    api.post("latency-tables", json={"document": document}, headers=other)
    calibration = {"slope": 1.5, "operator_ms": 0.25, "fixed_ms": 1.0, "fitted_on": ["a" * 64], "held_out": None}
    with database.writing.begin() as session:
        add_calibration(session, "elsewhere", table, calibration)

    path = f"latency-tables/{table}/calibration"
    assert api.get(path).json() == {"calibration": None}
    assert api.get(path, headers=other).json()["calibration"] == calibration


def test_a_session_of_a_project_neither_reads_nor_changes_another(database: Database) -> None:
    job = a_job(database, project="elsewhere")
    other = aliased(JobRow)
    with database.writing.begin() as session:
        narrow(session, FIRST_PROJECT)
        assert session.scalars(select(other.id)).all() == []
        assert session.scalars(select(JobRow.id).where(exists().where(other.id == job))).all() == []
        session.execute(update(JobRow).values(priority=5))
    with database.reading() as session:
        assert session.scalars(select(JobRow.priority)).all() == [0]


def test_an_idempotency_key_is_a_projects_own(api: TestClient, token: Callable[..., str]) -> None:
    body = {"kind": "profile", "preset": "quick"}
    key = {"Idempotency-Key": "nightly"}
    other = {"Authorization": f"Bearer {token(project='elsewhere')}"}

    ours = api.post("jobs", json=body, headers=key).json()["id"]
    theirs = api.post("jobs", json={**body, "name": "another"}, headers=key | other).json()["id"]

    assert ours != theirs
    assert api.post("jobs", json=body, headers=key).json()["id"] == ours


def test_an_attempts_token_reads_its_project_and_submits_nothing(ask: Ask, database: Database) -> None:
    job, others = a_job(database), a_job(database, project="elsewhere")
    worker = a_started_worker(database)

    assert ask(worker.token, "GET", f"jobs/{job}") == 200
    assert ask(worker.token, "GET", f"jobs/{others}") == 404
    assert ask(worker.token, "POST", "jobs", json={"kind": "profile"}) == 403
    with database.writing.begin() as session:
        acknowledge_stop(session, worker.submission_id, worker.token)
    assert ask(worker.token, "GET", f"jobs/{job}") == 409


def test_a_users_token_is_no_attempts(api: TestClient, database: Database) -> None:
    a_job(database)
    worker = a_started_worker(database)

    assert api.post(f"attempts/{worker.submission_id}/heartbeat", json={}).status_code == 401
    assert api.put(f"blobs/{'a' * 64}", content=b"").status_code == 401


def test_the_profiler_reads_documents_of_every_project_and_nothing_else(ask: Ask, database: Database) -> None:
    with database.writing.begin() as session:
        table = add_latency_table(session, "elsewhere", a_latency_table_document(), database_now(session))

    assert ask(PROFILER_TOKEN, "GET", f"latency-tables/{table}") == 200
    assert ask(PROFILER_TOKEN, "GET", "jobs") == 401
    assert ask(PROFILER_TOKEN, "POST", "jobs", json={"kind": "profile"}) == 401
