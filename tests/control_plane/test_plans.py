"""Plans over HTTP: what a submission would be, told without making a job."""

from dataclasses import fields

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from services.client.attempt_schemas import USAGE, Heartbeat, Usage, WorkerEvent
from services.client.schemas import JobKind, JsonObject, Plan, Preset, Problem, Progress
from services.control_plane.costs import FREE
from services.control_plane.submission import PRESETS
from services.storage.attempts import lose_attempt
from services.storage.database import Database
from services.storage.worker_writes import heartbeat, report_events, succeed
from tests.control_plane.builders import SPECS, a_stored_table, submitted
from tests.storage.builders import (
    a_blob,
    a_latency_table,
    a_phase,
    a_started_worker,
    a_success,
    a_usage,
    an_architecture,
    an_architecture_document,
    end_backoff,
)

PRETRAIN, SEARCH = a_phase(9, 18.0), a_phase(19, 95.0, 2, 40.0)  # 2 s and 5 s a step, 20 s an evaluation


def ask(api: TestClient, kind: str, **values: object) -> Response:
    spec = {**SPECS[kind], **values.pop("spec", {})}
    return api.post("plans", json={"kind": kind, "spec": spec, **values})


def planned(api: TestClient, kind: str, **values: object) -> Plan:
    answer = ask(api, kind, **values)
    assert answer.status_code == 200, answer.text
    return Plan.model_validate_json(answer.content)


def ran(database: Database, kind: JobKind, usage: Usage, progress: Progress | None = None) -> None:
    """Lets the next runnable job succeed, its attempt having taken this."""
    worker = a_started_worker(database)
    event = WorkerEvent(worker_sequence=0, kind=USAGE, data=usage.model_dump(mode="json"))
    with database.writing.begin() as session:
        heartbeat(session, worker.submission_id, worker.token, Heartbeat(progress=progress))
        report_events(session, worker.submission_id, worker.token, [event])
        a_blob(session)
        succeed(session, worker.submission_id, worker.token, a_success(kind))


@pytest.fixture
def table(api: TestClient, database: Database) -> dict[str, str]:
    """The inputs of a search."""
    return {"latency_table": a_stored_table(database)}


@pytest.fixture
def architecture(api: TestClient) -> dict[str, str]:
    """The inputs of a retraining."""
    api.post("architectures", json={"document": an_architecture_document()})
    return {"architecture": an_architecture().digest}


def test_a_plan_makes_no_job(api: TestClient, table: dict[str, str]):
    planned(api, "search", inputs=table)

    assert api.get("jobs").json()["items"] == []


def test_a_plan_has_the_spec_of_the_job_that_would_be_made(api: TestClient):
    job = api.get(f"jobs/{submitted(api, 'profile')}").json()

    assert planned(api, "profile").spec == job["spec"]


@pytest.mark.parametrize(
    ("kind", "values", "status", "field"),
    [
        ("search", {"spec": {"colour": "red"}, "inputs": {"latency_table": "0" * 64}}, 422, "spec.colour"),
        ("search", {}, 422, "inputs.latency_table"),
        ("search", {"inputs": {"latency_table": "0" * 64}}, 422, "inputs.latency_table"),
        ("search", {"after": ["aaaaaaaaaaaa"]}, 422, "after.0"),
        ("evaluate", {"inputs": {"network": "aaaaaaaaaaaa"}}, 422, "inputs.network"),
        ("search", {"priority": 101}, 422, "priority"),
    ],
)
def test_a_plan_is_refused_as_the_submission_is(
    api: TestClient, kind: str, values: dict[str, object], status: int, field: str
):
    body = {"kind": kind, **values, "spec": {**SPECS[kind], **values.get("spec", {})}}

    plan, job = api.post("plans", json=body), api.post("jobs", json=body)

    assert plan.status_code == job.status_code == status
    refusals = [Problem.model_validate_json(refusal.content) for refusal in (plan, job)]
    assert refusals[0].model_copy(update={"request_id": refusals[1].request_id}) == refusals[1]
    assert [error.field for error in refusals[0].errors] == [field]


def test_a_parent_that_has_ended_badly_is_a_conflict_for_the_plan_too(api: TestClient):
    profile = submitted(api, "profile")
    api.post(f"jobs/{profile}/cancel")

    assert ask(api, "search", after=[profile]).status_code == 409


def test_rows_that_the_table_lacks_are_named_and_not_refused(api: TestClient, database: Database):
    lacking = tuple(a_latency_table().rows)[:3]
    inputs = {"latency_table": a_stored_table(database, without=lacking)}

    assert planned(api, "search", inputs=inputs).missing_rows == [spec.key for spec in lacking]
    assert api.post("jobs", json={"kind": "search", "spec": SPECS["search"], "inputs": inputs}).status_code == 422


def test_a_complete_table_lacks_nothing(api: TestClient, table: dict[str, str]):
    assert planned(api, "search", inputs=table).missing_rows == []


def test_a_named_input_is_told_with_what_a_table_was_measured_on(api: TestClient, table: dict[str, str]):
    (planned_input,) = planned(api, "search", inputs=table).inputs

    assert (planned_input.name, planned_input.id, planned_input.job) == ("latency_table", table["latency_table"], None)
    assert planned_input.about == "onnxruntime on a CPU, fp32, 64x128"


def test_an_input_of_a_job_that_has_not_run_is_told_with_that_job(api: TestClient):
    profile = submitted(api, "profile")

    plan = planned(api, "search", after=[profile])

    assert [(given.id, given.job) for given in plan.inputs] == [(None, profile)]
    assert plan.waits_for == [profile]


def test_an_input_of_a_job_that_has_succeeded_is_what_that_made(api: TestClient, database: Database):
    profile = submitted(api, "profile")
    ran(database, JobKind.PROFILE, a_usage())

    plan = planned(api, "search", after=[profile])

    assert [(given.id, given.job) for given in plan.inputs] == [(a_latency_table().digest, profile)]
    assert plan.waits_for == []


def test_a_profile_job_counts_its_rows_neighbours_included(api: TestClient):
    between, alone = planned(api, "profile").rows, planned(api, "profile", spec={"alone": True}).rows

    assert (alone.to_measure, alone.taken_over) == (len(a_latency_table().rows), 0)
    assert between.to_measure > alone.to_measure


def test_a_profile_job_takes_over_the_sound_rows_of_the_table_that_it_names(api: TestClient, database: Database):
    lacking = tuple(a_latency_table().rows)[:3]
    inputs = {"latency_table": a_stored_table(database, without=lacking)}

    rows = planned(api, "profile", spec={"alone": True, "engine": "onnxruntime"}, inputs=inputs).rows

    assert (rows.to_measure, rows.taken_over) == (3, len(a_latency_table().rows) - 3)


def test_steps_of_a_profile_job_are_passes_over_rows_and_networks(api: TestClient):
    spec = {"passes": 3, "random_networks": 4, "calibration_networks": 5}
    plan = planned(api, "profile", spec=spec)

    assert [(phase.name, phase.steps) for phase in plan.phases] == [
        ("measure operators", 3 * plan.rows.to_measure),
        ("measure networks", 27),
    ]
    assert planned(api, "profile", spec={**spec, "random_networks": 0}).phases[1].steps == 0


def test_steps_of_a_search_are_those_of_both_phases(api: TestClient, table: dict[str, str]):
    plan = planned(api, "search", spec={"pretrain_epochs": 2, "epochs": 3, "steps_per_epoch": 10}, inputs=table)

    assert [(phase.name, phase.steps) for phase in plan.phases] == [("pretrain", 20), ("search", 30)]
    assert plan.steps == 50


def test_steps_of_a_pass_over_the_data_are_not_guessed(api: TestClient, table: dict[str, str]):
    plan = planned(api, "search", spec={"steps_per_epoch": None}, inputs=table)

    assert (plan.steps, [phase.steps for phase in plan.phases]) == (None, [None, None])


def test_steps_of_a_pass_are_those_that_an_earlier_job_counted(
    api: TestClient, database: Database, table: dict[str, str]
):
    spec = {"pretrain_epochs": 1, "epochs": 2}
    submitted(api, "search", spec={**SPECS["search"], **spec}, inputs=table)
    last = Progress(phase="search", epoch=2, epochs=2, step=7, steps=7, fraction=1.0)
    ran(database, JobKind.SEARCH, a_usage(18.0 + 95.0 + 40.0, pretrain=PRETRAIN, search=SEARCH), last)

    plan = planned(api, "search", spec={"pretrain_epochs": 0, "epochs": 10}, inputs=table)

    assert plan.steps == 70
    assert plan.estimate.seconds == pytest.approx(70 * 5.0 + 10 * 20.0)


def test_what_was_never_run_is_not_estimated_and_the_fix_is_named(api: TestClient, table: dict[str, str]):
    estimate = planned(api, "search", inputs=table).estimate

    assert (estimate.seconds, estimate.peak_memory_bytes, estimate.job) == (None, None, None)
    assert "no earlier search job of this shape has run: a short one" in estimate.reason
    assert "epochs=1" in estimate.reason


def test_a_long_search_is_estimated_from_a_short_one(api: TestClient, database: Database, table: dict[str, str]):
    probe = {"pretrain_epochs": 1, "epochs": 2, "steps_per_epoch": 10}
    job = submitted(api, "search", spec={**SPECS["search"], **probe}, inputs=table)
    usage = a_usage(18.0 + 95.0 + 40.0 + 30.0, pretrain=PRETRAIN, search=SEARCH)
    ran(database, JobKind.SEARCH, usage)

    estimate = planned(
        api, "search", spec={"pretrain_epochs": 20, "epochs": 30, "steps_per_epoch": 100, "seed": 7}, inputs=table
    ).estimate

    assert estimate.seconds == pytest.approx(20 * 100 * 2.0 + 30 * 100 * 5.0 + 30 * 20.0 + 30.0)
    assert (estimate.peak_memory_bytes, estimate.device) == (2_000_000_000, "a CPU")
    assert (estimate.job, estimate.reason) == (job, None)


@pytest.mark.parametrize(
    "change", [{"batch_size": 4}, {"arithmetic": "bf16"}, {"target_latency_ms": 3.0}, {"crop": {"height": 64}}]
)
def test_a_job_that_costs_something_else_tells_nothing(
    api: TestClient, database: Database, table: dict[str, str], change: JsonObject
):
    submitted(api, "search", inputs=table)
    ran(database, JobKind.SEARCH, a_usage(pretrain=PRETRAIN, search=SEARCH))

    assert planned(api, "search", spec={"steps_per_epoch": 5}, inputs=table).estimate.seconds is not None
    assert planned(api, "search", spec={"steps_per_epoch": 5, **change}, inputs=table).estimate.job is None


def test_the_newest_job_that_did_all_of_the_work_is_taken(api: TestClient, database: Database, table: dict[str, str]):
    for _ in range(2):
        submitted(api, "search", inputs=table)
    ran(database, JobKind.SEARCH, a_usage(pretrain=PRETRAIN, search=SEARCH))
    ran(database, JobKind.SEARCH, a_usage(pretrain=PRETRAIN))
    _, older = (job["id"] for job in api.get("jobs").json()["items"])

    spec = {"steps_per_epoch": 5}
    assert planned(api, "search", spec=spec, inputs=table).estimate.job == older
    assert planned(api, "search", spec={**spec, "pretrain_epochs": 0}, inputs=table).estimate.job == older


def test_an_earlier_job_that_stopped_too_early_tells_its_memory_alone(
    api: TestClient, database: Database, table: dict[str, str]
):
    job = submitted(api, "search", inputs=table)
    ran(database, JobKind.SEARCH, a_usage(pretrain=PRETRAIN))

    estimate = planned(api, "search", spec={"steps_per_epoch": 5}, inputs=table).estimate

    assert (estimate.seconds, estimate.peak_memory_bytes) == (None, 2_000_000_000)
    assert estimate.reason == f"job {job} of this shape made fewer than two steps of phase 'search'"


def test_the_attempts_at_a_job_are_taken_together(api: TestClient, database: Database, table: dict[str, str]):
    submitted(api, "search", inputs=table)
    for usage in (a_usage(60.0, pretrain=PRETRAIN), a_usage(95.0 + 40.0 + 5.0, search=SEARCH)):
        worker = a_started_worker(database)
        event = WorkerEvent(worker_sequence=0, kind=USAGE, data=usage.model_dump(mode="json"))
        with database.writing.begin() as session:
            report_events(session, worker.submission_id, worker.token, [event])
            lose_attempt(session, worker.submission_id, "killed")
            end_backoff(session)

    spec = {"pretrain_epochs": 1, "epochs": 1, "steps_per_epoch": 1}
    assert planned(api, "search", spec=spec, inputs=table).estimate.seconds == pytest.approx(2.0 + 5.0 + 20.0 + 5.0)


def test_a_retraining_evaluates_every_so_many_epochs_and_after_the_last(
    api: TestClient, database: Database, architecture: dict[str, str]
):
    submitted(api, "retrain", inputs=architecture)
    ran(database, JobKind.RETRAIN, a_usage(14.0, retrain=a_phase(2, 4.0, 1, 10.0)))

    spec = {"epochs": 21, "steps_per_epoch": 100, "evaluate_every": 10}
    estimate = planned(api, "retrain", spec=spec, inputs=architecture).estimate

    assert estimate.seconds == pytest.approx(21 * 100 * 2.0 + 3 * 10.0)


def test_a_retraining_of_an_architecture_that_is_not_derived_waits_for_it(api: TestClient):
    search = submitted(api, "search", after=(submitted(api, "profile"),))

    reason = planned(api, "retrain", after=[search]).estimate.reason

    assert reason == f"architecture: job {search} has not made it yet: plan again once it has succeeded"


def test_an_evaluation_takes_as_long_as_one_of_the_same_architecture(
    api: TestClient, database: Database, architecture: dict[str, str]
):
    networks = [submitted(api, "retrain", inputs=architecture) for _ in range(2)]
    trained = {"student": an_architecture_document()}
    for _ in networks:
        worker = a_started_worker(database)
        success = a_success(JobKind.RETRAIN).model_copy(update={"architectures": trained})
        with database.writing.begin() as session:
            a_blob(session)
            succeed(session, worker.submission_id, worker.token, success)
    submitted(api, "evaluate", inputs={"network": networks[0]})
    ran(database, JobKind.EVALUATE, a_usage(30.0, evaluate=a_phase(9, 20.0), waiting=a_phase(0, 4.0)))

    plan = planned(api, "evaluate", inputs={"network": networks[1]})

    assert (plan.phases, plan.steps) == ([], None)
    assert plan.estimate.seconds == pytest.approx(26.0)


def test_jobs_of_another_project_tell_nothing(api: TestClient, database: Database, table: dict[str, str]):
    made = api.post("tokens", json={"name": "other", "scope": "submit", "project": "elsewhere"}).json()
    submitted(api, "search", inputs=table)
    ran(database, JobKind.SEARCH, a_usage(pretrain=PRETRAIN, search=SEARCH))
    other = {"Authorization": f"Bearer {made['secret']}"}
    document = {"document": a_latency_table().to_document()}
    inputs = {"latency_table": api.post("latency-tables", json=document, headers=other).json()["id"]}

    body = {"kind": "search", "spec": {**SPECS["search"], "steps_per_epoch": 5}, "inputs": inputs}
    assert api.post("plans", json=body, headers=other).json()["estimate"]["job"] is None
    assert api.post("plans", json={**body, "inputs": table}).json()["estimate"]["job"] is not None


def test_a_reader_may_plan(api: TestClient):
    made = api.post("tokens", json={"name": "reader", "scope": "read"}).json()

    assert api.post("plans", json={"kind": "profile"}, headers={"Authorization": f"Bearer {made['secret']}"}).is_success


@pytest.mark.parametrize("kind", list(JobKind))
def test_settings_that_cost_nothing_are_settings(kind: JobKind):
    assert FREE[kind] <= {field.name for field in fields(PRESETS[Preset.PAPER][kind])}
