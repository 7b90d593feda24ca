"""The real process on a new state folder, with Ray and the profiler away, and the real client."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.client.client import FasterSegClient
from services.client.errors import ProblemError
from services.client.schemas import JobState

TOKEN = "the token of the one who set the service up"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A control plane that has begun to answer, and its address."""
    environment = {
        **os.environ,
        "FASTERSEG_STATE_FOLDER": str(tmp_path),
        "FASTERSEG_PROFILER_TOKEN": "what the profiler and it share",
        "FASTERSEG_FIRST_TOKEN_PATH": str(tmp_path / "api.token"),
        "FASTERSEG_PORT": str(free_port()),
        "FASTERSEG_RAY_ADDRESS": f"http://127.0.0.1:{free_port()}",
        "FASTERSEG_PROFILER_URL": f"http://127.0.0.1:{free_port()}",
    }
    (tmp_path / "api.token").write_text(TOKEN + "\n")
    command = [sys.executable, "-m", "services.control_plane"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = (re.search(r"running on (http://\S+)", line) for line in process.stderr)
        address = next((line[1] for line in lines if line), "")
        yield process, address
        process.kill()


def test_the_process_serves_and_ends_cleanly(process: tuple[subprocess.Popen[str], str], tmp_path: Path):
    server, address = process
    with FasterSegClient(address, token=TOKEN) as client:
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
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert (tmp_path / "fasterseg.db").exists()
