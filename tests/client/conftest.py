"""A control plane that answers at an address of its own, and a client that speaks to it."""

from collections.abc import Iterator

import pytest

from services.client.client import FasterSegClient
from tests.client.fake_control_plane import FakeControlPlane, serving


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with serving(FakeControlPlane()) as plane:
        yield plane


@pytest.fixture
def client(plane: FakeControlPlane) -> Iterator[FasterSegClient]:
    with FasterSegClient(plane.url) as client:
        yield client
