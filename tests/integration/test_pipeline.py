"""The whole chain through the real service, on a tiny space, with workers killed in the middle of the search."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import torch

from fasterseg_core.checkpoint import CheckpointKind, unpack
from fasterseg_core.network import load_network
from services.client.client import FasterSegClient
from services.client.schemas import FailureClass, Job, JobState, JsonObject
from tests.collector import Collector, ToldSpan
from tests.integration.conftest import Embedded
from tests.proc import of_process, processes
from tests.workers.event_files import reader, scalars

pytestmark = pytest.mark.timeout(600)

RESOLUTION: JsonObject = {"height": 64, "width": 96}
SPACE: JsonObject = {"num_layers": 3, "expansion_ratios": [1, 2], "student_ratio": 1}
PROFILE: JsonObject = {"space": SPACE, "resolution": RESOLUTION, "passes": 1, "random_networks": 2}
SEARCH: JsonObject = {
    "space": SPACE,
    "resolution": RESOLUTION,
    "image_scale": 1.0,
    "crop": {"height": 64, "width": 64},
    "batch_size": 2,
    "pretrain_epochs": 1,
    "epochs": 5,
    "steps_per_epoch": 4,
    "holdout_images": 8,
}
RETRAIN: JsonObject = {
    "resolution": RESOLUTION,
    "crop": {"height": 64, "width": 64},
    "batch_size": 2,
    "epochs": 2,
    "steps_per_epoch": 2,
    "holdout_images": 4,
}


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[FasterSegClient]:
    with FasterSegClient(service.settings.url, token=service.settings.api_token_file.read_text()) as client:
        yield client


@pytest.fixture(scope="module")
def profile(client: FasterSegClient) -> Job:
    return succeeded(client, client.submit("profile", PROFILE, preset="quick"))


@pytest.fixture(scope="module")
def search(client: FasterSegClient, profile: Job) -> Job:
    return succeeded(client, client.submit("search", SEARCH, preset="quick", after=[profile.id]))


def succeeded(client: FasterSegClient, job: Job) -> Job:
    final = client.wait(job.id, poll_seconds=0.2)
    assert final.state is JobState.SUCCEEDED, (final.reason, client.logs(job.id))
    return final


def artifact(client: FasterSegClient, job: Job, name: str) -> bytes:
    return client.artifact(next(a.sha256 for a in job.artifacts if a.name == name))


def recorded(client: FasterSegClient, job: Job, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows of what `fasterseg fetch` brings."""
    client.fetch(job, folder)
    return scalars(reader(folder))


def kill_worker(job: Job) -> None:
    """SIGKILL to the Ray task of a job, found by the title that Ray gives it."""
    title = f"ray::{job.kind} fasterseg-{job.id}-{job.epoch}".encode()
    [pid] = [pid for pid in processes() if of_process(pid, "cmdline").startswith(title)]
    assert b"FASTERSEG_TICKET" not in of_process(pid, "environ")  # or Ray had no process ready for it
    os.kill(pid, signal.SIGKILL)


def checkpoints(client: FasterSegClient, job: Job) -> list[str]:
    """The digests of all checkpoints of a job, in their order."""
    return [str(event.data["sha256"]) for event in client.events(job.id) if event.kind == "checkpoint"]


def in_phase(client: FasterSegClient, job: Job, epoch: int, phase: str) -> Job:
    """The job, once its nth attempt is in a phase."""
    while (now := client.job(job.id)).epoch < epoch or now.progress is None or now.progress.phase != phase:
        assert not now.state.is_final, now.reason
        time.sleep(0.05)
    return now


def kill_attempt(client: FasterSegClient, job: Job, epoch: int, phase: str) -> None:
    """SIGKILL to the worker of the nth attempt at a job, once it is in a phase and has left its first checkpoint."""
    now = in_phase(client, job, epoch, phase)
    while len(checkpoints(client, job)) < epoch:
        time.sleep(0.05)
    kill_worker(now)


def test_a_search_killed_in_both_phases_and_with_a_damaged_checkpoint_ends_as_if_undisturbed(
    service: Embedded, client: FasterSegClient, profile: Job, search: Job, tmp_path: Path
) -> None:
    disturbed = client.submit("search", SEARCH, preset="quick", after=[profile.id])

    kill_attempt(client, disturbed, 1, "pretrain")
    kill_attempt(client, disturbed, 2, "search")
    newest = checkpoints(client, disturbed)[-1]
    (service.state / "blobs" / newest[:2] / newest).write_bytes(b"damaged")
    final = succeeded(client, disturbed)

    events = list(client.events(final.id))
    kinds = [event.kind for event in events]
    assert final.epoch == 3
    assert kinds.count("requeued") == 2
    assert [event.data["sha256"] for event in events if event.kind == "checkpoint_unreadable"] == [newest]
    assert artifact(client, final, "history.json") == artifact(client, search, "history.json")
    assert final.architectures == search.architectures
    curves = recorded(client, final, tmp_path / "disturbed")
    assert curves == recorded(client, search, tmp_path / "undisturbed")
    assert [step for step, _ in curves["loss/search_step"]] == list(range(1, 21))
    assert curves == scalars(reader(service.state / "tensorboard" / f"search-{final.id}"))


def test_a_paused_search_goes_on_once_it_is_resumed_and_ends_as_if_undisturbed(
    client: FasterSegClient, profile: Job, search: Job
) -> None:
    job = client.submit("search", SEARCH, preset="quick", after=[profile.id])
    in_phase(client, job, 1, "search")

    client.pause(job.id)
    while (now := client.job(job.id)).state is not JobState.QUEUED:
        time.sleep(0.05)
    assert now.paused
    client.resume(job.id)
    kinds = [event.kind for event in client.stream_events(job.id)]  # to the end

    assert [kind for kind in kinds if kind not in ("checkpoint", "epoch", "usage")] == [
        *("queued", "started", "pause_requested", "paused", "resumed", "started", "succeeded")
    ]
    final = client.job(job.id)
    assert artifact(client, final, "history.json") == artifact(client, search, "history.json")
    assert final.architectures == search.architectures


def test_a_search_that_diverges_fails_for_good_and_keeps_its_last_good_state(
    client: FasterSegClient, profile: Job
) -> None:
    spec: JsonObject = {**SEARCH, "pretrain_optimizer": {"learning_rate": 1e6, "weight_decay": 1.0}}

    failed = client.wait(client.submit("search", spec, preset="quick", after=[profile.id]).id, poll_seconds=0.2)

    assert failed.state is JobState.FAILED
    assert failed.epoch == 1
    assert failed.reason is not None
    assert failed.reason.failure is FailureClass.USER_ERROR
    assert failed.reason.message.startswith("pretrain epoch 1, step")
    state = unpack(client.artifact(checkpoints(client, failed)[-1]), CheckpointKind.SEARCH)
    assert (state["epoch"], state["step"]) == (0, 1)


def test_a_table_serves_estimates(client: FasterSegClient, profile: Job, search: Job) -> None:
    assert profile.latency_table is not None
    assert search.result is not None

    (estimate,) = client.estimate(profile.latency_table, [search.architectures["student"]])

    student = search.result["student"]
    assert isinstance(student, dict)
    assert estimate.calibrated_ms == pytest.approx(student["predicted_ms"])
    assert sum(estimate.parts.values()) == pytest.approx(estimate.milliseconds)


def test_teacher_and_distilled_student_are_trained_evaluated_and_exported(
    client: FasterSegClient, profile: Job, search: Job, tmp_path: Path
) -> None:
    teacher = client.submit("retrain", {**RETRAIN, "role": "teacher"}, preset="quick", after=[search.id])
    student = client.submit("retrain", RETRAIN, preset="quick", after=[search.id, teacher.id])
    slim: JsonObject = {**RETRAIN, "role": "teacher", "pruning": {"expansion_ratio": 1, "end_ratio": 1}}
    pruned = client.submit("retrain", slim, preset="quick", after=[search.id, teacher.id])
    evaluate = client.submit("evaluate", {"resolution": RESOLUTION, "pictures": 2}, preset="quick", after=[student.id])
    export = client.submit("export", {"resolution": RESOLUTION}, preset="quick", after=[student.id, profile.id])

    evaluated, exported = succeeded(client, evaluate), succeeded(client, export)

    trained = client.job(student.id)
    assert trained.result is not None
    assert trained.result["distilled"] is True
    assert trained.result["best_epoch"] in (1, 2)
    assert trained.architectures == {"student": search.architectures["student"]}
    pruned = succeeded(client, pruned)
    assert pruned.result is not None
    assert pruned.result["distilled"] is True
    assert pruned.architectures["teacher"] not in (search.architectures["teacher"], None)
    last = load_network(artifact(client, pruned, "network-last.safetensors"))
    assert last.architecture.stem_ratio == last.architecture.head_ratio == 1
    assert recorded(client, pruned, tmp_path / "pruned")["loss/retrain"][-1][0] == 2
    assert evaluated.result is not None
    assert {"miou", "untrained_miou", "constant_miou", "class_iou"} <= evaluated.result.keys()
    assert exported.result is not None
    assert float(str(exported.result["max_difference"])) < 1e-3
    assert exported.result["predicted_ms"] == pytest.approx(
        client.estimate(str(profile.latency_table), [search.architectures["student"]])[0].calibrated_ms
    )
    network = load_network(artifact(client, trained, "network.safetensors"))
    images = torch.randn(1, 3, 64, 96)
    session = onnxruntime.InferenceSession(artifact(client, exported, "network.onnx"))
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": images.numpy()})[0], network(images), atol=1e-3)
    assert {path.name for path in client.fetch(exported, tmp_path)} >= {"network.onnx"}
    assert client.architecture_svg(search.architectures["student"]).startswith("<svg")
    assert json.loads(artifact(client, search, "history.json"))[-1]["miou"] is not None


def test_a_job_is_one_trace_of_all_processes(client: FasterSegClient, collector: Collector, profile: Job) -> None:
    submission = collector.wait_for(lambda span: span.attributes.get("fasterseg.job") == profile.id)
    assert (submission.process, submission.name) == ("fasterseg-control-plane", "POST /jobs")

    def child(name: str, parent: ToldSpan) -> ToldSpan:
        return collector.wait_for(lambda span: span.name == name and span.parent_id == parent.span_id)

    dispatch = child("dispatch", submission)
    attempt = child("attempt", dispatch)
    stages = [child(name, attempt) for name in ("wait for a machine", "set up", "measure operators", "finish")]
    redemption = child("POST /attempts/{submission_id}/redeem", attempt)
    success = child("POST /attempts/{submission_id}/succeed", attempt)

    spans = [submission, dispatch, attempt, *stages, redemption, success]
    assert {span.trace_id for span in spans} == {submission.trace_id}
    assert {span.process for span in (attempt, *stages)} == {"fasterseg-worker"}
    assert [stage.begun for stage in stages] == sorted(stage.begun for stage in stages)
    assert attempt.begun <= stages[0].begun
    assert stages[-1].ended <= attempt.ended
    assert f"trace_id={submission.trace_id}" in client.logs(profile.id)


def test_an_estimate_is_one_trace_of_control_plane_and_profiler(
    client: FasterSegClient, collector: Collector, profile: Job, search: Job
) -> None:
    client.estimate(str(profile.latency_table), [search.architectures["student"]])

    asked = collector.wait_for(lambda span: span.process == "fasterseg-profiler" and "estimates" in span.name)

    assert collector.wait_for(lambda span: span.span_id == asked.parent_id).process == "fasterseg-control-plane"


def test_each_attempt_is_a_ray_job_with_its_log(service: Embedded, client: FasterSegClient, search: Job) -> None:
    assert search.ray_submission_id is not None
    assert search.id in search.ray_submission_id

    assert f"job={search.id} attempt=1" in client.logs(search.id)


def test_ray_tells_whose_job_it_is(service: Embedded, client: FasterSegClient, profile: Job) -> None:
    token = service.settings.token_file.read_text()
    jobs = httpx.get(f"{service.settings.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}).json()

    (told,) = [job["metadata"] for job in jobs if job["submission_id"] == profile.ray_submission_id]

    assert told == {
        "job": profile.id,
        "attempt": "1",
        "kind": "profile",
        "project": "default",
        "job_name": profile.id,
        "user": profile.created_by,
    }


def test_a_running_job_is_cancelled_within_a_step(client: FasterSegClient, profile: Job) -> None:
    job = client.submit("search", {**SEARCH, "epochs": 10_000}, preset="quick", after=[profile.id])
    while (running := client.job(job.id)).progress is None or running.progress.phase != "search":
        time.sleep(0.1)

    client.cancel(job.id)

    assert client.wait(job.id, poll_seconds=0.2).state is JobState.CANCELLED
