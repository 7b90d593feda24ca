import socket
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from services.embedded.processes import load, members
from services.embedded.settings import HOST
from tests.integration.conftest import Embedded, an_embedded_service

pytestmark = pytest.mark.timeout(300)


def test_every_part_is_healthy(service: Embedded) -> None:
    health = httpx.get(f"{service.settings.url}/api/v1/health", timeout=30).json()

    assert [health[part] for part in ("status", "database", "store", "ray", "profiler")] == ["ok"] * 5


def test_status_says_so(service: Embedded) -> None:
    result = service.status()

    assert result.returncode == 0
    assert "healthy" in result.stdout


def test_up_says_that_it_is_up_already(service: Embedded) -> None:
    result = service.up()

    assert result.returncode == 0
    assert "already up" in result.stdout
    assert service.settings.url in result.stdout


def test_ray_answers_nobody_without_its_token(service: Embedded) -> None:
    jobs = f"{service.settings.dashboard_url}/api/jobs/"
    token = service.settings.token_file.read_text()

    assert httpx.get(jobs).status_code == HTTPStatus.UNAUTHORIZED
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}).status_code == HTTPStatus.OK


@pytest.mark.parametrize("option", ["--port", "--dashboard-port", "--profiler-port"])
def test_a_taken_port_is_refused_by_its_option_and_nothing_stays(option: str, tmp_path: Path) -> None:
    embedded = an_embedded_service(tmp_path)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]

        result = embedded.up(f"{option}={port}")

    assert result.returncode == 1
    assert f"port {port} is taken" in result.stderr
    assert f"choose another one with {option}" in result.stderr
    assert load(tmp_path) is None


def test_down_stops_everything_and_may_be_repeated(tmp_path: Path) -> None:
    embedded = an_embedded_service(tmp_path)
    embedded.up()
    run = load(tmp_path)
    assert run is not None
    assert members(run) != []

    first, second = embedded.down(), embedded.down()

    assert (first.returncode, second.returncode) == (0, 0)
    assert "not up" in second.stdout
    assert members(run) == []
    assert not run.ray_folder.exists()


def test_up_refuses_other_options_than_it_runs_with(service: Embedded) -> None:
    result = service.up("--cpus=1000")

    assert result.returncode == 1
    assert "already up with --cpus" in result.stderr
