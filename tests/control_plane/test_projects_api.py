"""Hours of projects over HTTP: who sees and sets them, and what plans and jobs say of them."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from services.client.schemas import Scope
from services.control_plane.parts import Parts
from services.storage.database import Database
from tests.storage.builders import Worker, a_job, a_started_worker, work_for

Headers = dict[str, str]


@pytest.fixture
def shown(api: TestClient) -> Callable[..., Headers]:
    """The headers of a request with a new token."""

    def show(scope: Scope, project: str = "default") -> Headers:
        made = api.post("tokens", json={"name": "a test", "scope": scope, "project": project}).json()
        return {"Authorization": f"Bearer {made['secret']}"}

    return show


def a_worker(database: Database, project: str = "default") -> Worker:
    a_job(database, project=project)
    return a_started_worker(database)


def work(database: Database, worker: Worker, hours: float) -> None:
    with database.writing.begin() as session:
        work_for(session, worker, hours)


def test_a_project_shows_what_is_used_and_left(api: TestClient, database: Database):
    assert api.get("projects/default").json() == {
        "name": "default",
        "max_hours": None,
        "used_hours": 0.0,
        "left_hours": None,
    }
    work(database, a_worker(database), hours=1.5)

    limited = api.put("projects/default", json={"max_hours": 4})

    assert limited.status_code == 200
    assert limited.json() == api.get("projects/default").json()
    assert limited.json()["used_hours"] == pytest.approx(1.5, abs=0.01)
    assert limited.json()["left_hours"] == pytest.approx(2.5, abs=0.01)
    assert api.put("projects/default", json={"max_hours": 1}).json()["left_hours"] == 0
    assert api.put("projects/default", json={"max_hours": None}).json()["left_hours"] is None


@pytest.mark.parametrize("hours", [-1, "many", 1e12])
def test_hours_that_cannot_be_are_refused(api: TestClient, hours: object):
    refused = api.put("projects/default", json={"max_hours": hours})

    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["max_hours"]


def test_a_limit_is_not_taken_away_by_leaving_it_out(api: TestClient):
    assert api.put("projects/default", json={}).status_code == 422


def test_a_name_that_no_project_has_is_refused(api: TestClient):
    assert api.get("projects/No%20Such").status_code == 422


def test_an_operator_alone_limits_a_project(api: TestClient, shown: Callable[..., Headers]):
    statuses = [api.put("projects/default", json={"max_hours": 1}, headers=shown(scope)).status_code for scope in Scope]

    assert statuses == [403, 403, 403, 200]


def test_a_project_is_seen_by_its_own_and_by_operators(
    api: TestClient, database: Database, shown: Callable[..., Headers]
):
    work(database, a_worker(database, "maps"), hours=2)
    api.put("projects/maps", json={"max_hours": 3})

    for headers in (shown(Scope.READ, "maps"), shown(Scope.OPERATOR)):
        seen = api.get("projects/maps", headers=headers).json()
        assert (round(seen["used_hours"], 2), seen["max_hours"]) == (2.0, 3.0)
    refused = api.get("projects/maps", headers=shown(Scope.ADMIN))
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "only an operator asks for another project; this token is of default",
    )


def test_an_operator_sees_all_projects_and_others_their_own(
    api: TestClient, database: Database, shown: Callable[..., Headers]
):
    work(database, a_worker(database, "maps"), hours=2)
    api.put("projects/limited", json={"max_hours": 3})
    reader = shown(Scope.READ, "new")

    def listed(headers: Headers) -> list[tuple[str, float, float | None]]:
        items = api.get("projects", headers=headers).json()["items"]
        return [(item["name"], round(item["used_hours"], 2), item["left_hours"]) for item in items]

    assert listed(shown(Scope.OPERATOR, "maps")) == [
        ("default", 0.0, None),
        ("limited", 0.0, 3.0),
        ("maps", 2.0, None),
        ("new", 0.0, None),
    ]
    assert listed(reader) == [("new", 0.0, None)]
    assert listed(shown(Scope.ADMIN, "maps")) == [("maps", 2.0, None)]


def test_a_project_that_has_not_changed_is_not_sent_again(api: TestClient, database: Database):
    worker = a_worker(database)
    tag = api.get("projects/default").headers["etag"]

    same = api.get("projects/default", headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)

    work(database, worker, hours=1)
    assert api.get("projects/default", headers={"If-None-Match": tag}).status_code == 200


def test_a_limit_of_a_project_that_has_changed_is_refused(api: TestClient):
    read = {"If-Match": api.get("projects/default").headers["etag"]}
    assert api.put("projects/default", json={"max_hours": 5}, headers=read).status_code == 200

    refused = api.put("projects/default", json={"max_hours": 7}, headers=read)

    assert refused.status_code == 412
    assert api.get("projects/default").json()["max_hours"] == 5
    assert api.put("projects/default", json={"max_hours": 7}, headers={"If-Match": "*"}).status_code == 200


def test_a_submission_is_accepted_and_says_what_it_waits_for(api: TestClient, parts: Parts):
    api.put("projects/default", json={"max_hours": 0})

    job = api.post("jobs", json={"kind": "profile", "preset": "quick"}).json()

    assert (job["state"], job["paused"]) == ("queued", True)
    assert job["limit_reached"].startswith("project.max_hours: 0 of 0 of project default were used")
    parts.runnable.clear()
    api.put("projects/default", json={"max_hours": 1})
    assert parts.runnable.is_set()
    assert api.get(f"jobs/{job['id']}").json()["paused"] is False


def test_a_plan_says_what_is_left_of_its_project(api: TestClient, database: Database, shown: Callable[..., Headers]):
    api.put("projects/maps", json={"max_hours": 3})
    work(database, a_worker(database, "maps"), hours=2)
    body = {"kind": "profile", "preset": "quick"}

    planned = api.post("plans", json=body, headers=shown(Scope.READ, "maps")).json()

    assert (planned["project"]["name"], planned["project"]["max_hours"]) == ("maps", 3.0)
    assert planned["project"]["left_hours"] == pytest.approx(1, abs=0.01)
