"""Submissions over HTTP: what is accepted, and that everything wrong is named before a job exists."""

import pytest
from fastapi.testclient import TestClient

from fasterseg_core.config import DatasetName
from services.client.schemas import FailureClass, JobKind, JsonObject, Reason
from services.storage.database import Database, database_now
from services.storage.jobs import fail_job, locked_job
from tests.control_plane.builders import SPECS, a_stored_table, run_next, submit, submitted
from tests.storage.builders import (
    SPACE,
    a_latency_table,
    an_architecture,
    an_architecture_document,
)


def refused(api: TestClient, kind: str, *, after: tuple[str, ...] = (), **values: object) -> dict[str, str]:
    """The refused fields and their messages."""
    response = api.post("jobs", json={"kind": kind, "spec": SPECS[kind], "after": list(after), **values})
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return {error["field"]: error["message"] for error in response.json()["errors"]}


def test_an_accepted_job_has_a_complete_spec_and_a_location(api: TestClient):
    response = api.post("jobs", json={"kind": "profile", "spec": {"threads": 2}, "name": "my CPU"})

    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["state"], job["name"], job["epoch"]) == ("queued", "my CPU", 0)
    assert job["spec"]["threads"] == 2
    assert job["spec"]["space"]["num_layers"] == 16, "the paper's, written out"


def test_the_whole_pipeline_is_accepted_before_anything_has_run(api: TestClient):
    profile = submitted(api, "profile")
    search = submitted(api, "search", after=(profile,))
    teacher = submitted(api, "retrain", after=(search,), spec={"dataset": "camvid", "role": "teacher"})
    student = submit(api, "retrain", after=(search, teacher))
    submitted(api, "evaluate", after=(str(student["id"]),))
    submitted(api, "export", after=(str(student["id"]), profile))

    assert student["inputs"] == {"architecture": None, "latency_table": None, "network": None, "teacher": teacher}


def test_every_row_of_table_3_is_accepted(api: TestClient):
    search = submitted(api, "search", after=(submitted(api, "profile"),))
    camvid = {"dataset": "camvid"}
    teacher = submitted(api, "retrain", after=(search,), spec={**camvid, "role": "teacher"})

    single = submit(api, "retrain", after=(search,), spec={**camvid, "branch": 32})
    alone = submit(api, "retrain", after=(search,), spec=camvid)
    pruned = submit(api, "retrain", after=(search, teacher), spec={**camvid, "role": "teacher", "pruning": {}})
    student = submit(api, "retrain", after=(search, teacher), spec=camvid)

    assert [job["inputs"]["teacher"] for job in (single, alone, pruned, student)] == [None, None, teacher, teacher]
    assert pruned["spec"]["pruning"] == {"expansion_ratio": 4, "end_ratio": 8}


def test_a_teacher_has_no_teacher_unless_it_is_pruned(api: TestClient):
    search = submitted(api, "search", after=(submitted(api, "profile"),))
    teacher = submitted(api, "retrain", after=(search,), spec={"dataset": "camvid", "role": "teacher"})

    errors = refused(api, "retrain", after=(search,), spec={"role": "teacher"}, inputs={"teacher": teacher})

    assert errors == {"inputs.teacher": "this retrain job reads none"}


def test_unknown_fields_are_refused_with_their_place(api: TestClient):
    spec = {**SPECS["profile"], "colour": "red", "space": {**SPACE, "depth": 3}}

    assert refused(api, "profile", spec=spec).keys() == {"spec.colour", "spec.space.depth"}
    assert refused(api, "profile", color="red").keys() == {"color"}


def test_a_resolution_too_small_for_scale_32_is_refused(api: TestClient):
    errors = refused(api, "profile", spec={"resolution": {"height": 63, "width": 128}})

    assert errors == {"spec.resolution": "height 63 is too small for scale 32: use 64 or more"}


@pytest.mark.parametrize("value", ["3", True, 2.5, None])
def test_values_are_not_converted(api: TestClient, value: object):
    assert refused(api, "profile", spec={"passes": value}).keys() == {"spec.passes"}


def test_a_search_needs_the_resolution_of_its_profile_job(api: TestClient):
    profile = submitted(api, "profile")
    spec = {**SPECS["search"], "resolution": {"height": 128, "width": 128}}

    errors = refused(api, "search", after=(profile,), spec=spec)

    assert errors == {"spec.resolution": f"128x128 is not the 64x128 of the table of profile job {profile}"}


def test_a_search_needs_the_resolution_of_its_table(api: TestClient, database: Database):
    table = a_stored_table(database)
    spec = {**SPECS["search"], "resolution": {"height": 128, "width": 128}}

    assert refused(api, "search", inputs={"latency_table": table}, spec=spec).keys() == {"spec.resolution"}


def test_a_search_needs_the_classes_of_its_table(api: TestClient, database: Database):
    table = a_stored_table(database, dataset=DatasetName.CITYSCAPES)

    errors = refused(api, "search", inputs={"latency_table": table})

    assert errors == {"spec.dataset": f"has 11 classes, latency table {table[:12]} is for 19"}


def test_a_table_that_lacks_an_entry_is_refused_by_the_entrys_name(api: TestClient, database: Database):
    missing = next(iter(a_latency_table().rows))
    table = a_stored_table(database, without=(missing,))

    errors = refused(api, "search", inputs={"latency_table": table})

    assert errors == {"spec.space": f"latency table {table[:12]} has no entry for {missing.key!r}"}


def test_a_profile_job_of_a_smaller_space_is_refused_by_the_first_entry_it_lacks(api: TestClient):
    smaller = {**SPACE, "expansion_ratios": [4]}
    profile = submitted(api, "profile", spec={**SPECS["profile"], "space": smaller})

    errors = refused(api, "search", after=(profile,))

    assert "has no entry for" in errors["spec.space"]


def test_a_complete_table_is_accepted(api: TestClient, database: Database):
    table = a_stored_table(database)

    assert submit(api, "search", inputs={"latency_table": table})["inputs"]["latency_table"] == table


def test_a_profile_job_may_name_an_earlier_table(api: TestClient, database: Database):
    table = a_stored_table(database)

    assert submit(api, "profile", inputs={"latency_table": table})["inputs"]["latency_table"] == table


def test_a_profile_job_that_waits_for_another_measures_every_row(api: TestClient, database: Database):
    earlier = submitted(api, "profile")
    later = submitted(api, "profile", after=(earlier,))
    run_next(database, JobKind.PROFILE)

    assert api.get(f"jobs/{later}").json()["inputs"]["latency_table"] is None


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"engine": "openvino"}, "spec.engine", "openvino is not the tensorrt"),
        ({"precision": "fp16"}, "spec.precision", "fp16 is not the fp32"),
        ({"resolution": {"height": 128, "width": 128}}, "spec.resolution", "128x128 is not the 64x128"),
    ],
)
def test_an_earlier_table_of_something_else_is_refused(
    api: TestClient, database: Database, change: JsonObject, field: str, found: str
):
    table = a_stored_table(database, engine="tensorrt")
    change = {"engine": "tensorrt", **change}

    errors = refused(api, "profile", inputs={"latency_table": table}, spec={**SPECS["profile"], **change})

    assert errors == {field: f"{found} of latency table {table[:12]}"}


def test_a_missing_parent_is_refused(api: TestClient):
    errors = refused(api, "search", after=("aaaaaaaaaaaa",))

    assert errors == {"after.0": "there is no job aaaaaaaaaaaa"}


def test_a_parent_named_twice_is_refused(api: TestClient):
    profile = submitted(api, "profile")

    assert refused(api, "search", after=(profile, profile)).keys() == {"after"}


def test_a_parent_of_the_wrong_kind_leaves_the_input_missing(api: TestClient):
    profile = submitted(api, "profile")

    errors = refused(api, "retrain", after=(profile,))

    assert errors == {"inputs.architecture": "missing: name one, or a search job in after"}


def test_a_job_without_its_input_is_refused(api: TestClient):
    assert refused(api, "search").keys() == {"inputs.latency_table"}
    assert refused(api, "evaluate").keys() == {"inputs.network"}


def test_two_parents_that_make_one_input_are_ambiguous(api: TestClient):
    profiles = (submitted(api, "profile"), submitted(api, "profile"))

    errors = refused(api, "search", after=profiles)

    assert "inputs.latency_table" in errors["after"]


def test_a_named_input_settles_an_ambiguity(api: TestClient, database: Database):
    table = a_stored_table(database)
    profiles = (submitted(api, "profile"), submitted(api, "profile"))

    assert submit(api, "search", after=profiles, inputs={"latency_table": table})["inputs"]["latency_table"] == table


def test_an_input_that_the_kind_does_not_read_is_refused(api: TestClient):
    assert refused(api, "profile", inputs={"architecture": "0" * 64}).keys() == {"inputs.architecture"}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("search", "latency_table", "0" * 64),
        ("profile", "latency_table", "0" * 64),
        ("retrain", "architecture", "0" * 64),
        ("evaluate", "network", "aaaaaaaaaaaa"),
    ],
)
def test_an_input_that_does_not_exist_is_refused(api: TestClient, kind: str, name: str, value: str):
    assert refused(api, kind, inputs={name: value}).keys() == {f"inputs.{name}"}


def test_a_network_must_come_from_a_retrain_job(api: TestClient):
    profile = submitted(api, "profile")

    errors = refused(api, "evaluate", inputs={"network": profile})

    assert errors == {"inputs.network": f"job {profile} is a profile job: name a retrain job"}


def test_a_network_that_is_not_trained_yet_must_be_waited_for(api: TestClient):
    architecture = api.post("architectures", json={"document": an_architecture_document()}).json()["id"]
    retrain = submitted(api, "retrain", inputs={"architecture": architecture})

    response = api.post("jobs", json={"kind": "evaluate", "spec": SPECS["evaluate"], "inputs": {"network": retrain}})

    assert response.status_code == 409
    assert "wait for it by naming it in `after`" in response.json()["detail"]


def test_a_student_cannot_teach(api: TestClient):
    architecture = an_architecture().digest
    api.post("architectures", json={"document": an_architecture_document()})
    student = submitted(api, "retrain", inputs={"architecture": architecture})

    errors = refused(api, "retrain", after=(student,), inputs={"architecture": architecture, "teacher": student})

    assert errors == {"inputs.teacher": f"job {student} trains a student"}


def test_a_network_is_evaluated_on_its_own_classes(api: TestClient):
    api.post("architectures", json={"document": an_architecture_document()})
    retrain = submitted(api, "retrain", inputs={"architecture": an_architecture().digest})

    errors = refused(api, "evaluate", after=(retrain,), spec={"dataset": "cityscapes"})

    assert errors == {"spec.dataset": f"has 19 classes, the network, job {retrain} is for 11"}


def test_an_export_needs_the_resolution_of_its_table(api: TestClient):
    api.post("architectures", json={"document": an_architecture_document()})
    profile = submitted(api, "profile")
    retrain = submitted(api, "retrain", inputs={"architecture": an_architecture().digest})

    errors = refused(api, "export", after=(profile, retrain), spec={"resolution": {"height": 128, "width": 128}})

    assert errors.keys() == {"spec.resolution"}


def test_a_failed_parent_is_a_conflict(api: TestClient, database: Database):
    profile = submitted(api, "profile")
    with database.writing.begin() as session:
        reason = Reason(failure=FailureClass.USER_ERROR, message="")
        fail_job(session, locked_job(session, profile), reason, database_now(session))

    response = api.post("jobs", json={"kind": "search", "spec": SPECS["search"], "after": [profile]})

    assert response.status_code == 409


def test_inputs_are_shown_once_the_parent_has_made_them(api: TestClient, database: Database):
    profile = submitted(api, "profile")
    search = submitted(api, "search", after=(profile,))
    run_next(database, JobKind.PROFILE)

    assert api.get(f"jobs/{search}").json()["inputs"]["latency_table"] == a_latency_table().digest


def test_the_same_idempotency_key_returns_the_same_job(api: TestClient):
    body = {"kind": "profile", "spec": SPECS["profile"]}
    first, second = (api.post("jobs", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    other = api.post("jobs", json=body, headers={"Idempotency-Key": "k2"})

    assert first.json() == second.json()
    assert other.json()["id"] != first.json()["id"]


def test_the_same_idempotency_key_with_another_body_is_refused(api: TestClient):
    headers = {"Idempotency-Key": "k1"}
    api.post("jobs", json={"kind": "profile"}, headers=headers)

    response = api.post("jobs", json={"kind": "profile", "name": "another"}, headers=headers)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_spec_changes_single_fields_of_its_preset(api: TestClient):
    response = api.post("jobs", json={"kind": "profile", "preset": "quick", "spec": {"space": {"num_layers": 5}}})

    space = response.json()["spec"]["space"]
    assert space == {"num_layers": 5, "expansion_ratios": [2, 3, 4], "student_ratio": 3}


def test_an_unknown_preset_is_refused(api: TestClient):
    response = api.post("jobs", json={"kind": "profile", "preset": "fast"})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["preset"]
