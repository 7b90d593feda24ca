import json
from pathlib import Path

import pytest

from services.client.client import FasterSegClient
from services.client.errors import CorruptArtifactError, ProblemError, UnexpectedAnswerError
from services.client.schemas import Inputs, JobKind, JobState
from tests.client.fake_control_plane import (
    ARCHITECTURE_DOCUMENT,
    ARCHITECTURE_ID,
    TABLE_DOCUMENT,
    TABLE_ID,
    Answer,
    FakeControlPlane,
    a_failed_job,
    a_job,
    a_progress,
    a_table_document,
    an_artifact,
    unknown_field,
)


def test_submission_whose_reply_was_lost_makes_one_job(plane: FakeControlPlane, client: FasterSegClient) -> None:
    plane.lost_replies = 1

    job = client.submit("search", {"seed": 1})

    assert plane.requests == ["POST /jobs", "POST /jobs"]
    assert list(plane.jobs) == [job.id]


def test_two_submissions_make_two_jobs(plane: FakeControlPlane, client: FasterSegClient) -> None:
    first, second = client.submit("search"), client.submit("search")

    assert first.id != second.id


def test_submission_carries_everything(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job = client.submit(
        JobKind.SEARCH,
        {"space": {"num_layers": 6}},
        after=["0000000000aa"],
        inputs=Inputs(latency_table=TABLE_ID),
        name="small",
    )

    assert (job.kind, job.name, job.after) == (JobKind.SEARCH, "small", ["0000000000aa"])
    assert job.spec == {"space": {"num_layers": 6}}
    assert job.inputs.latency_table == TABLE_ID


def test_a_plan_carries_what_its_submission_would(plane: FakeControlPlane, client: FasterSegClient) -> None:
    values = {"preset": "quick", "after": ["0000000000aa"], "inputs": Inputs(latency_table=TABLE_ID), "name": "small"}

    plan = client.plan("search", {"seed": 7}, **values)
    client.submit("search", {"seed": 7}, **values)

    assert plan == plane.plan
    assert plane.planned == list(plane.submissions.values())


def test_a_busy_service_is_asked_again(plane: FakeControlPlane, client: FasterSegClient) -> None:
    plane.busy_replies = 2
    job_id = plane.add(a_job())

    assert client.job(job_id).id == job_id


def test_a_refused_field_is_named(plane: FakeControlPlane, client: FasterSegClient) -> None:
    plane.refusals["POST /jobs"] = unknown_field("spec.space.layers")

    with pytest.raises(ProblemError, match=r"spec\.space\.layers: unknown field; did you mean num_layers\?") as refused:
        client.submit("search")

    assert refused.value.status == 422
    assert refused.value.problem.errors[0].field == "spec.space.layers"


def test_another_service_at_the_address_is_told_apart(plane: FakeControlPlane, client: FasterSegClient) -> None:
    plane.refusals["GET /health"] = Answer(200, b"<html>It works!</html>")

    with pytest.raises(UnexpectedAnswerError, match="/health did not answer as a FasterSeg service"):
        client.health()


def test_jobs_come_from_every_page(plane: FakeControlPlane, client: FasterSegClient) -> None:
    for number in range(5):
        plane.add(a_job(id=f"{number:012}"))

    assert [job.id for job in client.jobs()] == [f"{number:012}" for number in range(5)]


def test_cancel_returns_the_job_with_its_request(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job(state=JobState.RUNNING))

    assert client.cancel(job_id).cancel_requested


def test_events_continue_after_a_sequence_number(plane: FakeControlPlane, client: FasterSegClient) -> None:
    assert [event.sequence for event in client.events("0000000000ab", after=1)] == [2, 3, 4, 5]


def test_follow_yields_each_job_when_it_changes(plane: FakeControlPlane, client: FasterSegClient) -> None:
    first = plane.add(a_job(id="000000000001"), a_job(id="000000000001"), a_job(id="000000000001", state="succeeded"))
    second = plane.add(a_job(id="000000000002"), a_failed_job(id="000000000002"))

    seen = [(job.id, job.state) for job in client.follow(first, second, poll_seconds=0.001)]

    assert seen == [(first, "queued"), (second, "queued"), (second, "failed"), (first, "succeeded")]


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_wait_returns_the_final_job(plane: FakeControlPlane, client: FasterSegClient, state: JobState) -> None:
    job_id = plane.add(a_job(), a_job(state=JobState.RUNNING, progress=a_progress()), a_job(state=state))

    assert client.wait(job_id, poll_seconds=0.001).state is state


def test_wait_ends_after_its_timeout(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job())

    with pytest.raises(TimeoutError, match=f"after 0.01 s not finished: {job_id}"):
        client.wait(job_id, poll_seconds=0.001, timeout=0.01)


def test_logs_are_followed_to_their_last_line(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job(), a_job(), a_job(state=JobState.SUCCEEDED))
    plane.logs = ["one\n", "one\n", "one\ntwo\n"]

    assert list(client.follow_logs(job_id, poll_seconds=0.001)) == ["one\n", "two\n"]


def test_the_log_of_a_new_attempt_is_printed_whole(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job(), a_job(state=JobState.SUCCEEDED))
    plane.logs = ["one\ntwo\n", "one again\n"]

    assert list(client.follow_logs(job_id, poll_seconds=0.001)) == ["one\ntwo\n", "one again\n"]


def test_lines_are_printed_once_though_ray_is_away_and_the_copy_lacks_the_last(
    plane: FakeControlPlane, client: FasterSegClient
) -> None:
    job_id = plane.add(a_job(), a_job(), a_job(), a_job(state=JobState.SUCCEEDED))
    plane.logs = ["one\ntwo\n", "one\n", "one\ntwo\nthree\n"]

    assert list(client.follow_logs(job_id, poll_seconds=0.001)) == ["one\ntwo\n", "three\n"]


def test_a_lost_log_is_followed_by_that_of_the_next_attempt(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job(), a_job(), a_job(state=JobState.SUCCEEDED))
    plane.logs = [None, "again\n"]

    assert list(client.follow_logs(job_id, poll_seconds=0.001)) == ["again\n"]


def test_a_log_that_is_lost_at_the_end_is_an_error(plane: FakeControlPlane, client: FasterSegClient) -> None:
    job_id = plane.add(a_job(state=JobState.FAILED))
    plane.logs = [None]

    with pytest.raises(ProblemError, match="410 Gone"):
        list(client.follow_logs(job_id, poll_seconds=0.001))


def test_a_corrupted_artifact_is_refused(plane: FakeControlPlane, client: FasterSegClient) -> None:
    digest = plane.add_artifact(b"weights")
    plane.artifacts[digest] = b"weightz"

    with pytest.raises(CorruptArtifactError, match=digest):
        client.artifact(digest)


def test_fetch_writes_what_a_job_made(plane: FakeControlPlane, client: FasterSegClient, tmp_path: Path) -> None:
    plane.add_artifact(b"<svg/>")
    job = a_job(
        artifacts=[an_artifact("student.svg", b"<svg/>")],
        architectures={"student": ARCHITECTURE_ID},
        latency_table=TABLE_ID,
    )

    picture, architecture, table = client.fetch(job, tmp_path / "out")

    assert picture == tmp_path / "out" / "student.svg"
    assert picture.read_bytes() == b"<svg/>"
    assert architecture.name == "architecture-student.json"
    assert json.loads(architecture.read_text()) == ARCHITECTURE_DOCUMENT
    assert table.name == "latency-table.json"
    assert json.loads(table.read_text()) == TABLE_DOCUMENT
    assert sorted((tmp_path / "out").iterdir()) == sorted([picture, architecture, table])


def test_fetch_leaves_nothing_of_a_corrupted_artifact(
    plane: FakeControlPlane, client: FasterSegClient, tmp_path: Path
) -> None:
    plane.artifacts[plane.add_artifact(b"weights")] = b"weightz"

    with pytest.raises(CorruptArtifactError):
        client.fetch(a_job(artifacts=[an_artifact("network.safetensors", b"weights")]), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_latency_tables_are_listed_and_read(client: FasterSegClient) -> None:
    (summary,) = client.latency_tables()

    assert client.latency_table(summary.id) == TABLE_DOCUMENT


def test_a_latency_table_is_added(plane: FakeControlPlane, client: FasterSegClient) -> None:
    document = a_table_document(device="another")

    summary = client.add_latency_table(document)

    assert (summary.rows, summary.quarantined) == (2, 0)
    assert client.latency_table(summary.id) == document


def test_estimates_come_one_for_each_architecture(client: FasterSegClient) -> None:
    estimates = client.estimate(TABLE_ID, [ARCHITECTURE_ID, ARCHITECTURE_DOCUMENT])

    assert [estimate.milliseconds for estimate in estimates] == [1.5, 1.5]


def test_architectures_are_listed_read_drawn_and_added(client: FasterSegClient) -> None:
    (record,) = client.architectures()

    assert client.architecture(record.id) == record
    assert client.architecture_svg(record.id) == "<svg/>"
    assert client.add_architecture({"stem_ratio": 4}).document == {"stem_ratio": 4}


def test_health_names_the_dashboard(client: FasterSegClient) -> None:
    assert client.health().ray_dashboard == "http://127.0.0.1:8265"
