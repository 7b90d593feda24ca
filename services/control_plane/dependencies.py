"""What routes ask FastAPI for: the parts, the session of who is let in, and turns where only so many go on at once."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from services.client.schemas import Scope
from services.control_plane.access import admit, is_profilers
from services.control_plane.parts import Parts
from services.storage.errors import NotAuthorized
from services.storage.tokens import Admission, is_use_worth_noting, note_use

MOST_SESSIONS = 24  # requests at a time that have one: fewer than FastAPI's 40 threads, and than connections
MOST_AT_PART = 8  # of each of reading the store, writing to it, asking the profiler: threads and sessions are left
MOST_COPIES = 32  # of blobs that are read, at a time: each lies on this machine's disk


# What is async here does not wait: FastAPI gives everything else a thread, whose hand-over takes longer than the work.
async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


_Credentials = Annotated[
    HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False, description="a token"))
]


async def _token(credentials: _Credentials) -> str:
    if credentials is None:
        raise NotAuthorized(
            "show a token, `Authorization: Bearer TOKEN`; the command line takes it from FASTERSEG_TOKEN, or from the "
            "file that FASTERSEG_TOKEN_FILE names"
        )
    return credentials.credentials


async def _turn() -> AsyncIterator[None]:
    yield


async def _part_turn() -> AsyncIterator[None]:
    yield


AllParts = Annotated[Parts, Depends(_parts)]
# Between two steps a request waits for a thread and holds a connection, perhaps SQLite's lock: if others that wait for
# these had all threads, nobody would go on. One Depends for all routes: they share the limit.
Turn = Annotated[None, Depends(_turn, scope="function", max_concurrency=MOST_SESSIONS)]
# A store or profiler that hangs keeps whoever asks it for minutes: others, such as heartbeats, must find threads and
# sessions, and so must the profiler, which reads here what it is asked about. Taken before a session, which it would
# otherwise wait with.
StoreRead = Annotated[None, Depends(_part_turn, scope="function", max_concurrency=MOST_AT_PART)]
StoreWrite = Annotated[None, Depends(_part_turn, scope="function", max_concurrency=MOST_AT_PART)]
ProfilerTurn = Annotated[None, Depends(_part_turn, scope="function", max_concurrency=MOST_AT_PART)]
# For a route whose answer is a copy of a blob, which is kept until it was sent. Readers may take long: no store, thread
# or session waits for them.
KEEPS_A_COPY = Depends(_part_turn, scope="request", max_concurrency=MOST_COPIES)
Token = Annotated[str, Depends(_token)]


@dataclass(frozen=True, kw_only=True)
class User:
    """Who asks: the session of the request, and what he was let in to."""

    session: Session
    admission: Admission


@contextmanager
def _let_in_to_read(parts: Parts, token: str) -> Iterator[User]:
    with parts.database.reading() as session:
        admission = admit(session, token, Scope.READ, parts.identity_provider)
        shown = admission.token
        noted = shown.id if shown is not None and is_use_worth_noting(session, shown) else None
        session.rollback()  # no connection waits with the request for a thread
        if noted is not None:
            # A note may be lost, a read not.
            with suppress(OperationalError), parts.database.writing.begin() as writing:
                note_use(writing, noted)
        yield User(session=session, admission=admission)


def _reading(parts: AllParts, token: Token, _: Turn) -> Iterator[User]:
    with _let_in_to_read(parts, token) as reader:
        yield reader


def _reading_documents(parts: AllParts, token: Token, _: Turn) -> Iterator[Session]:
    if is_profilers(parts.settings, token):
        with parts.database.reading() as session:
            yield session
    else:
        with _let_in_to_read(parts, token) as reader:
            yield reader.session


def _writing(needed: Scope) -> Callable[[Parts, str, None], Iterator[User]]:
    def writing(parts: AllParts, token: Token, _: Turn) -> Iterator[User]:
        with parts.database.writing.begin() as session:
            admission = admit(session, token, needed, parts.identity_provider)
            if admission.token is not None and is_use_worth_noting(session, admission.token):
                note_use(session, admission.token.id)
            yield User(session=session, admission=admission)

    return writing


async def _session_to_read(reader: "Reader") -> Session:
    return reader.session


async def _session_to_write(submitter: "Submitter") -> Session:
    return submitter.session


def _reporting(parts: AllParts, _: Turn) -> Iterator[Session]:
    with parts.database.writing.begin() as session:
        yield session


def _making_runnable(parts: AllParts) -> Iterator[None]:
    yield
    parts.runnable.set()


# Scope "function": committed before the answer is sent, so that what was acknowledged is there.
Reader = Annotated[User, Depends(_reading, scope="function")]
ReadSession = Annotated[Session, Depends(_session_to_read)]
DocumentSession = Annotated[Session, Depends(_reading_documents, scope="function")]  # the profiler's, too
Submitter = Annotated[User, Depends(_writing(Scope.SUBMIT), scope="function")]
WriteSession = Annotated[Session, Depends(_session_to_write)]
Admin = Annotated[User, Depends(_writing(Scope.ADMIN), scope="function")]
Operator = Annotated[User, Depends(_writing(Scope.OPERATOR), scope="function")]
WorkerSession = Annotated[Session, Depends(_reporting, scope="function")]  # what is written there asks for the attempt
# For a route after which a job may start: the dispatcher looks at once, not at its next tick.
MAKES_RUNNABLE = Depends(_making_runnable, scope="function")
