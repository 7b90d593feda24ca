"""What the routers work with: opened once by the application, handed to them by FastAPI."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from services.client.schemas import Scope
from services.control_plane.access import admit
from services.control_plane.ray_jobs import RayJobs
from services.control_plane.settings import Settings
from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.tokens import note_use


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


_Credentials = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer(description="a token"))]


async def _token(credentials: _Credentials) -> str:
    return credentials.credentials


AllParts = Annotated[Parts, Depends(_parts)]
Token = Annotated[str, Depends(_token)]


@dataclass(frozen=True)
class Admin:
    """An administrator's session, and what its token may give to others."""

    session: Session
    scope: Scope


def _reading(parts: AllParts, token: Token) -> Iterator[Session]:
    with parts.database.reading() as session:
        caller = admit(session, parts.settings, token, Scope.READ)
        if caller.noted_token is not None:
            with parts.database.writing.begin() as writing:
                note_use(writing, caller.noted_token)
        yield session


def _writing(parts: AllParts, token: Token) -> Iterator[Session]:
    with _admitted(parts, token, Scope.SUBMIT) as (session, _):
        yield session


def _administering(parts: AllParts, token: Token) -> Iterator[Admin]:
    with _admitted(parts, token, Scope.ADMIN) as (session, scope):
        yield Admin(session, scope)


@contextmanager
def _admitted(parts: Parts, token: str, needed: Scope) -> Iterator[tuple[Session, Scope]]:
    with parts.database.writing.begin() as session:
        caller = admit(session, parts.settings, token, needed)
        if caller.noted_token is not None:
            note_use(session, caller.noted_token)
        yield session, caller.scope


def _reporting(parts: AllParts) -> Iterator[Session]:
    with parts.database.writing.begin() as session:
        yield session


# Scope "function": committed before the answer is sent, so that what was acknowledged is there.
ReadSession = Annotated[Session, Depends(_reading, scope="function")]
WriteSession = Annotated[Session, Depends(_writing, scope="function")]
AdminSession = Annotated[Admin, Depends(_administering, scope="function")]
WorkerSession = Annotated[Session, Depends(_reporting, scope="function")]  # what is written there asks for the attempt
