"""Bodies of blobs on their way: whoever sends one too slowly is cut off, and holds nothing for longer."""

import asyncio
from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import IO

from starlette.exceptions import HTTPException

from services.storage.blob_store import CHUNK_BYTES

STALL_SECONDS = 30.0  # that CHUNK_BYTES may take: at 35 kB/s, where clients reckon with a store of 500


async def receive(pieces: AsyncIterable[bytes], file: IO[bytes]) -> None:
    """Writes a body into a file, as it arrives.

    Raises:
        HTTPException: so little of it arrives that its sender may be gone.
    """
    now = asyncio.get_running_loop().time
    written, due = 0, CHUNK_BYTES
    try:
        async with asyncio.timeout(STALL_SECONDS) as patience:
            async for piece in pieces:
                written += file.write(piece)
                if written >= due:
                    due = written + CHUNK_BYTES
                    patience.reschedule(now() + STALL_SECONDS)
    except TimeoutError as error:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            f"less than {CHUNK_BYTES} bytes of the body arrived in {STALL_SECONDS:.0f} s: send it again",
            headers={"Connection": "close"},
        ) from error
