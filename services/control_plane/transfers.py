"""Bodies of blobs on their way: who sends or takes one too slowly is cut off, and keeps nobody else waiting."""

import asyncio
import logging
from collections.abc import AsyncIterable, Mapping
from contextlib import closing
from http import HTTPStatus
from typing import IO

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from services.storage.blob_store import CHUNK_BYTES, chunks

STALL_SECONDS = 30.0  # that CHUNK_BYTES may take: at 35 kB/s, where clients reckon with a store of 500

_log = logging.getLogger(__name__)


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


class Download(StreamingResponse):
    """A file from where it stands, which is closed when the answer ends, whole or cut off."""

    def __init__(self, file: IO[bytes], *, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(chunks(file), media_type=media_type, headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; the server closes the connection where this returns before the end."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        with closing(self._file):
            try:
                await super().__call__(scope, receive, send_in_time)
            except TimeoutError:
                _log.warning("a reader is cut off", extra={"bytes": CHUNK_BYTES, "seconds": STALL_SECONDS})
