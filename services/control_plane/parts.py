"""What the routers work with: opened once by the application, handed to them by FastAPI."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from services.control_plane.ray_jobs import RayJobs
from services.control_plane.settings import Settings
from services.storage.blob_store import BlobStore
from services.storage.database import Database


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The database, the blob store, Ray and the profiler's Serve app."""

    settings: Settings
    database: Database
    store: BlobStore
    ray: RayJobs
    profiler: httpx.Client


# What is async here does not wait: FastAPI gives everything else a thread, whose hand-over takes longer than the work.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _reading(parts: Annotated[Parts, Depends(_parts)]) -> Iterator[Session]:
    with parts.database.reading() as session:
        yield session


def _writing(parts: Annotated[Parts, Depends(_parts)]) -> Iterator[Session]:
    with parts.database.writing.begin() as session:
        yield session


async def _token(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer(description="the token of an attempt"))],
) -> str:
    return credentials.credentials


AllParts = Annotated[Parts, Depends(_parts)]
# Scope "function": committed before the answer is sent, so that what was acknowledged is there.
ReadSession = Annotated[Session, Depends(_reading, scope="function")]
WriteSession = Annotated[Session, Depends(_writing, scope="function")]
AttemptToken = Annotated[str, Depends(_token)]
