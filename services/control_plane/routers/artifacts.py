"""Blobs: workers put them, verified by their digest; everyone gets them so, or a link to the store that has them."""

import tempfile
from collections.abc import AsyncIterator
from typing import IO, Annotated

from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from services.client.schemas import Sha256
from services.control_plane.dependencies import KEEPS_A_COPY, AllParts, Reader, StoreRead, StoreWrite, Token
from services.control_plane.entity_tags import IMMUTABLE
from services.control_plane.parts import Parts
from services.control_plane.transfers import Download, receive
from services.storage.artifacts import find_blob, keep_blob
from services.storage.worker_writes import authorize

router = APIRouter(tags=["artifacts"])

SPOOL_BYTES = 1 << 20  # larger bodies wait on the disk
LINK = {
    "description": "A link to the store, which expires: follow it without the token, and verify the digest",
    "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
}
BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


async def _received(request: Request, parts: AllParts, token: Token) -> AsyncIterator[IO[bytes]]:
    """The whole body of an attempt's request, as a file at its beginning."""
    await run_in_threadpool(_check_token, parts, token)
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as body:
        await receive(request.stream(), body)
        body.seek(0)
        yield body


# Declared before a turn at the store: a worker that is slow, or gone, must not hold one.
Received = Annotated[IO[bytes], Depends(_received, scope="function")]


@router.put("/blobs/{sha256}", status_code=status.HTTP_204_NO_CONTENT, openapi_extra=BODY)
def put_blob(sha256: Sha256, body: Received, parts: AllParts, _: StoreWrite) -> None:
    """Stores a body under its digest; storing it again changes nothing."""
    keep_blob(parts.database, parts.store, sha256, body)


@router.get(
    "/artifacts/{sha256}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, 307: LINK},
    dependencies=[KEEPS_A_COPY],
)
def get_artifact(sha256: Sha256, _: StoreRead, reader: Reader, parts: AllParts) -> Response:
    """The bytes of a blob, verified before the first is sent, or a link to them."""
    blob = find_blob(reader.session, sha256)
    reader.session.rollback()  # nothing is held while the store is read
    links = parts.worker_links if reader.admission.is_worker else parts.user_links
    if links is not None:
        return RedirectResponse(links.link(sha256, disposition=blob.disposition))
    headers = {
        "Content-Disposition": blob.disposition,
        "Content-Length": str(blob.size),
        "ETag": f'"{sha256}"',
        "Cache-Control": IMMUTABLE,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",  # a worker chose the type
    }
    return Download(parts.store.open(sha256), media_type=blob.media_type, headers=headers)


def _check_token(parts: Parts, token: str) -> None:
    with parts.database.reading() as session:
        authorize(session, token)
