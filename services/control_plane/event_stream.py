"""Jobs' histories as server-sent events: what is there already, then what happens, until the job is over.

Streams that have read everything wait together: a look a second at the database tells which of them have to read again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable
from contextvars import Context
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from services.client.schemas import Event, Scope
from services.control_plane.access import admit, still_admitted
from services.control_plane.identity_provider import IdentityProvider
from services.storage.database import AWAY, Database, said
from services.storage.errors import LeaseLost, NotAuthorized, Unavailable
from services.storage.events import count_events, list_events
from services.storage.jobs import find_job

POLL_SECONDS = 1.0
READERS = 4  # streams that read at a time: however many an event wakes, other requests find threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    """A stream that has read so many events of its job."""

    job: str
    events: int
    token: str
    woken: asyncio.Future[None]


class EventStreams:
    """The event streams of a process: the database is asked once a period for all of them, never while none waits."""

    def __init__(
        self, database: Database, provider: IdentityProvider | None, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._database = database
        self._provider = provider
        self._poll_seconds = poll_seconds
        self._readers = asyncio.Semaphore(READERS)
        self._waiting: set[_Waiting] = set()
        self._ended = False
        self._looking: asyncio.Task[None] | None = None  # not done while a stream waits

    async def follow(self, token: str, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
        """Each event beyond the number `after`, its number as the id: whoever lost the connection goes on there.

        Nothing is held between two reads. The stream ends with its token, too, and where the database cannot be read.
        """
        while not self._ended:
            try:
                async with self._readers:
                    events, count, is_over = await run_in_threadpool(self._read, token, job_id, after)
            except (NotAuthorized, LeaseLost, Unavailable):
                return
            except AWAY as error:
                _log.warning("an event stream ends", extra={"error": said(error)})
                return
            for event in events:
                yield ServerSentEvent(id=str(event.sequence), event=event.kind, data=event)
                after = event.sequence
            if after < count:
                continue  # there are more than a page
            if is_over or self._ended:
                return
            await self._change(token, job_id, count)

    def end(self) -> None:
        """Ends all streams, and those that begin: their clients go on where they are, with another process."""
        self._ended = True
        _wake(self._waiting)

    def _read(self, token: str, job_id: str, after: int) -> tuple[list[Event], int, bool]:
        """Events beyond a number, how many there are in all, and whether there will be no others."""
        with self._database.reading() as session:
            admit(session, token, Scope.READ, self._provider)
            job = find_job(session, job_id)  # read first: its last event is committed with it
            return list_events(session, job_id, after), job.events, job.state.is_final

    async def _change(self, token: str, job_id: str, count: int) -> None:
        """Waits until a job has another number of events, or a token may be good no longer."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(job=job_id, events=count, token=token, woken=loop.create_future())
        self._waiting.add(waiting)
        if self._looking is None or self._looking.done():
            # Of no request: in the context of this one it would be logged as its doing.
            self._looking = loop.create_task(self._look_while_any_waits(), context=Context())
        try:
            await waiting.woken
        finally:
            self._waiting.remove(waiting)

    async def _look_while_any_waits(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            if not self._waiting:
                return
            _wake(await run_in_threadpool(self._changed, tuple(self._waiting)))

    def _changed(self, streams: Collection[_Waiting]) -> Collection[_Waiting]:
        """Those that have to read again; where that cannot be told, all: each then meets what is wrong by itself."""
        try:
            with self._database.reading() as session:
                admitted = still_admitted(session, {stream.token for stream in streams}, self._provider)
                counts = count_events(session, {stream.job for stream in streams})
        except AWAY:
            return streams
        except Exception:  # noqa: BLE001  # whatever it was, no stream may wait for ever
            _log.warning("event streams look by themselves", exc_info=True)
            return streams
        return [s for s in streams if counts.get(s.job) != s.events or s.token not in admitted]


def _wake(streams: Iterable[_Waiting]) -> None:
    for stream in streams:
        if not stream.woken.done():  # its client may be gone
            stream.woken.set_result(None)
