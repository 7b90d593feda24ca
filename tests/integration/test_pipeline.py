"""The whole chain through the real service, on a tiny space, with a worker killed in the middle of the search."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from fasterseg_core.network import load_network
from services.client.client import FasterSegClient
from services.client.schemas import Job, JobState, JsonObject
from tests.integration.conftest import Embedded

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
    "steps_per_epoch": 2,
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
    with FasterSegClient(service.settings.url) as client:
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


def kill_worker(job: Job) -> None:
    """SIGKILL to the Ray task of a job, found by the title that Ray gives it."""
    title = f"ray::{job.kind} {job.id}".encode()
    pids = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(title)
    ]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)


def test_a_killed_search_resumes_from_its_checkpoint_as_if_undisturbed(
    client: FasterSegClient, profile: Job, search: Job
) -> None:
    disturbed = client.submit("search", SEARCH, preset="quick", after=[profile.id])
    while not any(event.kind == "checkpoint" for event in client.events(disturbed.id)):
        time.sleep(0.05)

    kill_worker(client.job(disturbed.id))
    final = succeeded(client, disturbed)

    kinds = [event.kind for event in client.events(final.id)]
    assert final.epoch == 2
    assert kinds.count("requeued") == 1
    assert artifact(client, final, "history.json") == artifact(client, search, "history.json")
    assert final.architectures == search.architectures


def test_a_table_serves_estimates(client: FasterSegClient, profile: Job, search: Job) -> None:
    assert profile.latency_table is not None
    assert search.result is not None

    (estimate,) = client.estimate(profile.latency_table, [search.architectures["student"]])

    student = search.result["student"]
    assert isinstance(student, dict)
    assert estimate.milliseconds == pytest.approx(student["predicted_ms"])
    assert sum(estimate.parts.values()) == pytest.approx(estimate.milliseconds)


def test_teacher_and_distilled_student_are_trained_evaluated_and_exported(
    client: FasterSegClient, profile: Job, search: Job, tmp_path: Path
) -> None:
    teacher = client.submit("retrain", {**RETRAIN, "role": "teacher"}, preset="quick", after=[search.id])
    student = client.submit("retrain", RETRAIN, preset="quick", after=[search.id, teacher.id])
    evaluate = client.submit("evaluate", {"resolution": RESOLUTION, "pictures": 2}, preset="quick", after=[student.id])
    export = client.submit("export", {"resolution": RESOLUTION}, preset="quick", after=[student.id, profile.id])

    evaluated, exported = succeeded(client, evaluate), succeeded(client, export)

    trained = client.job(student.id)
    assert trained.result is not None
    assert trained.result["distilled"] is True
    assert evaluated.result is not None
    assert {"miou", "untrained_miou", "constant_miou", "class_iou"} <= evaluated.result.keys()
    assert exported.result is not None
    assert float(str(exported.result["max_difference"])) < 1e-3
    assert exported.result["predicted_ms"] == pytest.approx(
        client.estimate(str(profile.latency_table), [search.architectures["student"]])[0].milliseconds
    )
    network = load_network(artifact(client, trained, "network.pt"))
    images = torch.randn(1, 3, 64, 96)
    session = onnxruntime.InferenceSession(artifact(client, exported, "network.onnx"))
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": images.numpy()})[0], network(images), atol=1e-3)
    assert {path.name for path in client.fetch(exported, tmp_path)} >= {"network.onnx"}
    assert client.architecture_svg(search.architectures["student"]).startswith("<svg")
    assert json.loads(artifact(client, search, "history.json"))[-1]["miou"] is not None


def test_each_attempt_is_a_ray_job_with_its_log(service: Embedded, client: FasterSegClient, search: Job) -> None:
    assert search.ray_submission_id is not None
    assert search.id in search.ray_submission_id

    assert f"search job {search.id}, attempt 1" in client.logs(search.id)


def test_a_running_job_is_cancelled_within_a_step(client: FasterSegClient, profile: Job) -> None:
    job = client.submit("search", {**SEARCH, "epochs": 10_000}, preset="quick", after=[profile.id])
    while (running := client.job(job.id)).progress is None or running.progress.phase != "search":
        time.sleep(0.1)

    client.cancel(job.id)

    assert client.wait(job.id, poll_seconds=0.2).state is JobState.CANCELLED
