"""Ray's client where Ray is away or cannot be asked; a real Ray is in the integration tests."""

import socket
from pathlib import Path

import pytest

from services.client.schemas import JobKind
from services.control_plane.ray_jobs import RayCluster, RayState
from services.storage.attempts import Dispatch
from services.storage.errors import Unavailable
from tests.faults.ray_stand_in import ray_stand_in


def a_cluster(
    cls: type[RayCluster] = RayCluster, *, address: str = "http://127.0.0.1:1", token_path: Path | None = None
) -> RayCluster:
    return cls(address=address, token_path=token_path, worker_command="true", worker_url="http://localhost")


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


class Contended(RayCluster):
    """A cluster whose client another thread, which was refused, drops as soon as this one has connected."""

    @property
    def _client(self) -> None:
        return None

    @_client.setter
    def _client(self, client: object) -> None:
        pass


def test_a_refusal_of_one_thread_does_not_take_the_client_from_another(tmp_path: Path):
    with ray_stand_in({}) as ray:
        (tmp_path / "token").write_text(str(ray.token))

        assert a_cluster(Contended, address=ray.url, token_path=tmp_path / "token").list_jobs() == {}


@pytest.mark.parametrize(("user", "shown"), [("oidc:ana", "oidc:ana"), (None, "unknown")])
def test_rays_job_says_what_it_is_and_whose(tmp_path: Path, user: str | None, shown: str):
    dispatch = Dispatch(
        submission_id="test-a1b2c3d4e5f6-1",
        ticket="a ticket",
        job="a1b2c3d4e5f6",
        kind=JobKind.SEARCH,
        name="nightly",
        project="perception",
        user=user,
        traceparent=None,
        waited_seconds=0,
    )
    with ray_stand_in({}) as ray:
        ray.holds_back = True
        (tmp_path / "token").write_text(str(ray.token))

        a_cluster(address=ray.url, token_path=tmp_path / "token").submit(dispatch)

        assert ray.metadata["test-a1b2c3d4e5f6-1"] == {
            "job": "a1b2c3d4e5f6",
            "attempt": "1",
            "kind": "search",
            "project": "perception",
            "job_name": "nightly",
            "user": shown,
        }


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("PENDING", False), ("RUNNING", False), ("STOPPED", True), ("SUCCEEDED", True), ("FAILED", True)],
)
def test_states_are_over_or_not(state: str, is_over: bool):
    assert RayState(state).is_over is is_over
