"""A job's history as server-sent events: what is there already, then what happens, until the job is over."""

import asyncio
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from services.client.schemas import Event, Scope
from services.control_plane.access import admit
from services.control_plane.identity_provider import IdentityProvider
from services.storage.database import Database
from services.storage.errors import LeaseLost, NotAuthorized, Unavailable
from services.storage.events import list_events
from services.storage.jobs import find_job

POLL_SECONDS = 1.0


async def event_stream(
    database: Database,
    provider: IdentityProvider | None,
    token: str,
    job_id: str,
    after: int,
    poll_seconds: float = POLL_SECONDS,
) -> AsyncIterator[ServerSentEvent]:
    """Each event beyond the number `after`, its number as the id: whoever lost the connection goes on there.

    The database is asked every second, and nothing is held in between. The stream ends with its token, too.
    """
    while True:
        try:
            events, is_over = await run_in_threadpool(_read, database, provider, token, job_id, after)
        except (NotAuthorized, LeaseLost, Unavailable):
            return
        for event in events:
            yield ServerSentEvent(id=str(event.sequence), event=event.kind, data=event)
            after = event.sequence
        if not events:
            if is_over:
                return
            await asyncio.sleep(poll_seconds)


def _read(
    database: Database, provider: IdentityProvider | None, token: str, job_id: str, after: int
) -> tuple[list[Event], bool]:
    """Events beyond a number, and whether there will be no others."""
    with database.reading() as session:
        admit(session, token, Scope.READ, provider)
        is_over = find_job(session, job_id).state.is_final  # read first: its last event is committed with it
        return list_events(session, job_id, after), is_over
