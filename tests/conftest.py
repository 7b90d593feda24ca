"""What every test shares: one thread for numerics, repeatable property tests, and S3 servers for those that ask."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.contracts.s3_servers import S3Server

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and the engines are first imported

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the tests that take longest, beside which another process runs all others."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(scope="session")
def moto() -> Iterator["S3Server"]:
    from tests.contracts.s3_servers import moto_server  # half a second

    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def ceph() -> Iterator["S3Server"]:
    from tests.contracts.ceph_gateway import PackagesUnavailable, ceph_gateway

    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        try:
            with ceph_gateway(Path(folder)) as server:
                yield server
        except PackagesUnavailable as error:
            pytest.skip(str(error))


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def s3_server(request: pytest.FixtureRequest) -> "S3Server":
    """Each S3 server in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    return server
