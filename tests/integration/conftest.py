"""One embedded service for all integration tests, on free ports, with its state in a temporary folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.embedded.processes import load
from services.embedded.ray_head import free_port
from services.embedded.settings import Settings
from tests.collector import Collector, collecting

START_SECONDS = 240


@dataclass(frozen=True)
class Embedded:
    """The command line of a service on this machine."""

    arguments: list[str]
    state: Path

    @property
    def settings(self) -> Settings:
        run = load(self.state)
        assert run is not None
        return run.settings

    def up(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run("up", *self.arguments, *options, **variables)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self._run("down", f"--state={self.state}")

    def status(self) -> subprocess.CompletedProcess[str]:
        return self._run("status", f"--state={self.state}")

    def _run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.embedded", *arguments]
        environment = {**os.environ, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=START_SECONDS)


def an_embedded_service(state: Path) -> Embedded:
    """A service that is not up, on ports that nobody uses."""
    ports = [f"--{name}={free_port()}" for name in ("port", "dashboard-port", "profiler-port")]
    return Embedded([f"--state={state}", *ports], state)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What is told of all that the service does."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Embedded]:
    """A service that is up."""
    embedded = an_embedded_service(tmp_path_factory.mktemp("state"))
    result = embedded.up(OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    assert result.returncode == 0, result.stdout + result.stderr
    yield embedded
    embedded.down()
