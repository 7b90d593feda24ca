"""How slowly a body may arrive, by a clock that is moved from piece to piece."""

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from starlette.exceptions import HTTPException

from services.control_plane.transfers import STALL_SECONDS, receive
from services.storage.blob_store import CHUNK_BYTES
from tests.clock import FakeClock


class Loop(asyncio.SelectorEventLoop):
    """An event loop of a clock's time."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.time = clock


def received(clock: FakeClock, size: int, *, pieces: int, seconds: float) -> int:
    """How much is received of a body in pieces of a size, each of which takes so many seconds."""
    file = io.BytesIO()

    async def arriving() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            clock.now += seconds
            await asyncio.sleep(0)
            yield bytes(size)

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        runner.run(receive(arriving(), file))
    return len(file.getvalue())


def test_a_body_may_take_long_as_long_as_it_arrives(clock: FakeClock):
    pieces = 4

    assert received(clock, CHUNK_BYTES, pieces=pieces, seconds=0.9 * STALL_SECONDS) == pieces * CHUNK_BYTES


def test_a_body_that_drips_is_cut_off(clock: FakeClock):
    with pytest.raises(HTTPException, match="408: less than 1048576 bytes of the body arrived in 30 s"):
        received(clock, 1, pieces=100, seconds=0.5 * STALL_SECONDS)
