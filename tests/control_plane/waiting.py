"""Waits of tests that ask in an event loop of their own."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

_Answer = TypeVar("_Answer")


def finished(asking: Coroutine[None, None, _Answer]) -> _Answer:
    """Waits for what a test asks, but not for ever."""
    return asyncio.run(asyncio.wait_for(asking, timeout=60))


async def until(happened: Callable[[], bool]) -> None:
    """Waits for what other threads do, which set nothing."""
    while not happened():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
