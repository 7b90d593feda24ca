"""The real process on a new state folder, with Ray and the profiler away, and the real client."""

import signal
import subprocess
from pathlib import Path

import pytest

from services.client.attempt import AttemptClient
from services.client.client import FasterSegClient
from services.client.errors import ProblemError
from services.client.schemas import JobKind, JobState
from services.control_plane.fsck import NOT_COMPARED
from services.storage.database import open_database
from tests.collector import collecting
from tests.contracts.s3_servers import S3Server
from tests.serving import COMMAND, TOKEN, control_plane, environment
from tests.storage.builders import BLOB, STATE, a_checkpoint, a_job, a_started_worker, a_trained_job


def test_the_process_serves_and_ends_cleanly(tmp_path: Path):
    with control_plane(tmp_path) as served, FasterSegClient(served.address, token=TOKEN) as client:
        job = client.submit("profile", {"dataset": "camvid"}, name="first")
        health = client.health()
        with pytest.raises(ProblemError, match=r"spec\.depth"):
            client.submit("profile", {"depth": 3})
        client.cancel(job.id)
        assert [event.kind for event in client.events(job.id)] == ["queued", "cancel_requested", "cancelled"]
        assert [(other.id, other.state) for other in client.jobs()] == [(job.id, JobState.CANCELLED)]
        assert (health.database, health.store) == ("ok", "ok")
        assert "does not answer" in health.ray
        assert "does not answer" in health.profiler
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait() == 0
    assert (tmp_path / "fasterseg.db").exists()


def test_a_process_that_is_ended_does_not_wait_for_those_who_watch(tmp_path: Path):
    with control_plane(tmp_path) as served, FasterSegClient(served.address, token=TOKEN) as client:
        watched = client.stream_events(client.submit("profile", {"dataset": "camvid"}).id)
        assert next(watched).kind == "queued"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait() == 0
    assert "timeout graceful shutdown exceeded" not in served.log.read_text()


def test_what_was_traced_is_told_before_the_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        with control_plane(tmp_path) as served, FasterSegClient(served.address, token=TOKEN) as client:
            client.submit("profile", {"dataset": "camvid"})
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait() == 0

        assert [(span.process, span.name) for span in collector.spans] == [("fasterseg-control-plane", "POST /jobs")]


def test_a_process_with_a_store_that_it_cannot_use_names_the_setting_and_ends(tmp_path: Path):
    (tmp_path / "api.token").write_text(TOKEN)
    settings = environment(tmp_path, S3_ENDPOINT="127.0.0.1:9", S3_SECURE="false")

    done = subprocess.run(COMMAND, env=settings, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("FASTERSEG_S3_ENDPOINT: no S3 server answers at 127.0.0.1:9")
    assert not (tmp_path / "fasterseg.db").exists()


def test_users_and_workers_read_blobs_from_the_store_under_the_addresses_that_are_set(
    tmp_path: Path, s3_server: S3Server
):
    store, bucket = s3_server.new_store()
    settings = {
        "S3_ENDPOINT": s3_server.endpoint,
        "S3_BUCKET": bucket,
        "S3_ACCESS_KEY": s3_server.access_key,
        "S3_SECRET_KEY": s3_server.secret_key,
        "S3_SECURE": "false",
        "S3_PUBLIC_URL": f"http://{s3_server.endpoint}",
        "S3_WORKER_URL": f"http://{s3_server.endpoint.replace('127.0.0.1', 'localhost')}",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
    }
    with control_plane(tmp_path, **settings) as served:
        database = open_database(f"sqlite:///{tmp_path / 'fasterseg.db'}")
        job = a_trained_job(database, store)
        a_job(database, JobKind.PROFILE)
        worker = a_started_worker(database)
        with FasterSegClient(served.address, token=TOKEN) as client:
            (path,) = client.fetch(client.job(job), tmp_path / "fetched")
        with (
            AttemptClient(served.address, worker.submission_id, token=worker.token, heartbeat_seconds=60.0) as attempt,
            attempt.checkpoint_file(a_checkpoint(STATE)) as file,
        ):
            assert file.read() == STATE
        database.engine.dispose()

    assert path.read_bytes() == BLOB
    said = served.log.read_text()
    assert said.count('"route": "/artifacts/{sha256}", "status": 307') == 2
    assert "X-Amz-Signature" not in said, "a link is as good as a token while it lasts"


@pytest.mark.parametrize("command", ["fsck", "check-schema"])
def test_a_comparison_serves_nothing_and_makes_nothing(tmp_path: Path, command: str):
    settings = environment(tmp_path / "elsewhere")

    done = subprocess.run([*COMMAND, command], env=settings, capture_output=True, text=True)

    missing = f"not compared: FASTERSEG_STATE_FOLDER: there is no {tmp_path}/elsewhere/fasterseg.db\n"
    assert (done.returncode, done.stderr) == (NOT_COMPARED, missing)
    assert not (tmp_path / "elsewhere").exists()


def test_settings_that_are_missing_or_wrong_are_named(tmp_path: Path):
    variables = environment(tmp_path) | {"OTEL_EXPORTER_OTLP_ENDPOINT": "here"}
    del variables["FASTERSEG_PROFILER_TOKEN"]

    result = subprocess.run([*COMMAND, "fsck"], env=variables, capture_output=True, text=True, timeout=60)

    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        r"OTEL_EXPORTER_OTLP_ENDPOINT: String should match pattern '^(https?://\S+)?$'",
        "FASTERSEG_PROFILER_TOKEN: Field required",
    ]
