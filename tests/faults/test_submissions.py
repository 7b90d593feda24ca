"""Submissions at the same moment: each is answered, and a key makes one job."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.postgresql import postgresql, postgresql_binaries
from tests.serving import TOKEN, control_plane

pytestmark = pytest.mark.row(14, "1,000 submissions at once, 50 keys 20 times each: 50 jobs, no 5xx")

BODY = b'{"kind": "profile", "preset": "quick"}'


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A control plane on each kind of database."""
    if request.param == "sqlite":
        with control_plane(tmp_path) as served:
            yield served.address
        return
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: initdb and pg_ctl were not found")
    with postgresql(binaries, fsync=True) as url, control_plane(tmp_path, DATABASE_URL=url) as served:
        yield served.address


async def submitted(address: str, key: int) -> tuple[int, str]:
    """The status of a submission on a connection of its own, and the id of its job."""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    writer.write(head.encode() + BODY)
    answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(answer.split()[1]), json.loads(body).get("id", "")


async def all_submitted(address: str, keys: int, times: int) -> list[tuple[int, str]]:
    """The answers to each of some keys, sent so many times, all at once."""
    return await asyncio.gather(*(submitted(address, number % keys) for number in range(keys * times)))


def test_more_submissions_than_connections_wait_for_each_other(address: str, record_property):
    record_property("runs", 100)
    answers = asyncio.run(all_submitted(address, keys=50, times=2))

    assert {status for status, _ in answers} == {202}
    assert len({job for _, job in answers}) == 50


@pytest.mark.fault
def test_a_thousand_submissions_of_fifty_keys_make_fifty_jobs(address: str, record_property):
    record_property("runs", 1000)
    answers = asyncio.run(all_submitted(address, keys=50, times=20))

    assert {status for status, _ in answers} == {202}
    assert len({job for _, job in answers}) == 50
