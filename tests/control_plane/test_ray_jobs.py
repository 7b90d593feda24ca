"""Ray's client where Ray is away or cannot be asked; a real Ray is in the integration tests."""

import socket
from pathlib import Path

import pytest

from services.control_plane.ray_jobs import RayCluster, RayState
from services.storage.errors import Unavailable


def a_cluster(*, address: str = "http://127.0.0.1:1", token_path: Path | None = None) -> RayCluster:
    return RayCluster(address=address, token_path=token_path, worker_command="true", worker_url="http://localhost")


def test_a_ray_that_is_away_is_unavailable():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        cluster = a_cluster(address=f"http://127.0.0.1:{closed.getsockname()[1]}")

        for _ in range(2):
            with pytest.raises(Unavailable, match="Ray does not answer"):
                cluster.list_jobs()


def test_a_missing_token_is_unavailable(tmp_path: Path):
    with pytest.raises(Unavailable, match="No such file"):
        a_cluster(token_path=tmp_path / "token").check()


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("PENDING", False), ("RUNNING", False), ("STOPPED", True), ("SUCCEEDED", True), ("FAILED", True)],
)
def test_states_are_over_or_not(state: str, is_over: bool):
    assert RayState(state).is_over is is_over
