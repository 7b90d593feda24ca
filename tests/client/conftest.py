"""A control plane that answers at an address of its own, and a client that speaks to it."""

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from services.client.cli import app
from services.client.client import FasterSegClient
from tests.client.fake_control_plane import FakeControlPlane, serving

Run = Callable[..., Result]


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with serving(FakeControlPlane()) as plane:
        yield plane


@pytest.fixture
def store() -> Iterator[FakeControlPlane]:
    """Another, which stands for a store that `plane` links to."""
    with serving(FakeControlPlane()) as store:
        yield store


@pytest.fixture
def client(plane: FakeControlPlane) -> Iterator[FasterSegClient]:
    with FasterSegClient(plane.url) as client:
        yield client


@pytest.fixture
def run(plane: FakeControlPlane) -> Run:
    """Runs the command with the plane's address in its environment."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env={"FASTERSEG_URL": plane.url, "COLUMNS": "200"})

    return run
