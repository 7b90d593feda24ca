"""The real process on a new state folder, with Ray and the profiler away, and the real client."""

import signal
from pathlib import Path

import pytest

from services.client.client import FasterSegClient
from services.client.errors import ProblemError
from services.client.schemas import JobState
from tests.serving import TOKEN, control_plane


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


def test_a_process_with_a_store_that_it_cannot_use_names_the_setting_and_ends(tmp_path: Path):
    environment = {
        **os.environ,
        "FASTERSEG_STATE_FOLDER": str(tmp_path),
        "FASTERSEG_PROFILER_TOKEN": "what the profiler and it share",
        "FASTERSEG_S3_ENDPOINT": f"127.0.0.1:{free_port()}",
        "FASTERSEG_S3_SECURE": "false",
    }
    command = [sys.executable, "-m", "services.control_plane"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("FASTERSEG_S3_ENDPOINT: no S3 server answers at 127.0.0.1:")
    assert not (tmp_path / "fasterseg.db").exists()


def test_fsck_names_faults_and_says_so_by_its_status(process: tuple[subprocess.Popen[str], str], tmp_path: Path):
    environment = {
        **os.environ,
        "FASTERSEG_STATE_FOLDER": str(tmp_path),
        "FASTERSEG_PROFILER_TOKEN": "what the profiler and it share",
    }
    command = [sys.executable, "-m", "services.control_plane", "fsck"]

    def fsck(**others: str) -> tuple[int, str]:
        done = subprocess.run(command, env=environment | others, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert fsck() == (0, "rows and store agree\n")
    lost = tmp_path / "blobs" / "ab" / ("ab" * 32)
    lost.parent.mkdir()
    lost.write_bytes(b"bytes")
    assert fsck() == (
        1,
        f"unknown {'ab' * 32}: 5 bytes without a row, which collection will remove\nfaults: 1\n",
    )
    elsewhere = str(tmp_path / "elsewhere")
    status, said = fsck(FASTERSEG_STATE_FOLDER=elsewhere)
    assert (status, said) == (2, f"FASTERSEG_STATE_FOLDER: there is no {elsewhere}/fasterseg.db\n")
    assert not Path(elsewhere).exists()
