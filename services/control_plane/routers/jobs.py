"""Jobs: submit, list, show, cancel, pause, resume, follow."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.client.schemas import EventPage, Job, JobId, JobKind, JobPage, JobState, JobSubmission, Limits
from services.control_plane.dependencies import (
    MAKES_RUNNABLE,
    AllParts,
    ReadSession,
    StoreRead,
    Submitter,
    Token,
    WriteSession,
)
from services.control_plane.entity_tags import CHANGED, UNCHANGED, IfMatch, IfNoneMatch, require_unchanged, tagged
from services.control_plane.event_stream import EventStreams
from services.control_plane.logs import read_logs
from services.control_plane.pages import JobCursor, Limit
from services.control_plane.submission import submit_job
from services.storage.events import list_events
from services.storage.jobs import find_job, request_cancel, request_pause, resume_job
from services.storage.views import page_of_jobs, show_job
from services.telemetry.logs import note

router = APIRouter(prefix="/jobs", tags=["jobs"])

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
After = Annotated[int, Query(ge=0, lt=2**31, description="the number of the last event that was read")]
Epoch = Annotated[int | None, Query(ge=1, lt=2**31, description="of the attempts at a job, counted from 1")]
LastEventId = Annotated[
    int | None, Header(ge=0, lt=2**31, description="as `after`; browsers send it when they reconnect")
]


def _existing(job_id: JobId, session: ReadSession) -> str:
    found = find_job(session, job_id).id
    session.rollback()  # nothing is held while Ray or the store is asked
    return found


async def _streams(request: Request) -> EventStreams:
    streams: EventStreams = request.app.state.streams
    return streams


Existing = Annotated[str, Depends(_existing)]  # of a job that the token sees
Streams = Annotated[EventStreams, Depends(_streams)]


@router.post("", status_code=status.HTTP_202_ACCEPTED, dependencies=[MAKES_RUNNABLE])
def submit(
    submission: JobSubmission, submitter: Submitter, response: Response, idempotency_key: IdempotencyKey = None
) -> Job:
    """Accepts a job. The same Idempotency-Key with the same body returns the same job."""
    job = submit_job(submitter.session, submission, idempotency_key, submitter.admission.user)
    note(job=job.id)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job


@router.get("")
def list_(
    session: ReadSession,
    state: JobState | None = None,
    kind: JobKind | None = None,
    cursor: JobCursor = None,
    limit: Limit = 50,
) -> JobPage:
    """The newest jobs first, page by page."""
    return page_of_jobs(session, state=state, kind=kind, before=cursor, limit=limit)


@router.get("/{job_id}", response_model=Job, responses=UNCHANGED)
def show(job_id: JobId, session: ReadSession, response: Response, if_none_match: IfNoneMatch = None) -> Job | Response:
    """One job. Its ETag changes whenever anything of it does, its progress included."""
    return tagged(show_job(session, find_job(session, job_id)), response, if_none_match)


@router.post("/{job_id}/cancel", responses=CHANGED)
def cancel(job_id: JobId, session: WriteSession, if_match: IfMatch = None) -> Job:
    """Cancels a queued job at once, and asks a running one to stop."""
    require_unchanged(session, job_id, if_match)
    return show_job(session, request_cancel(session, job_id))


@router.post("/{job_id}/pause", responses=CHANGED)
def pause(job_id: JobId, session: WriteSession, if_match: IfMatch = None) -> Job:
    """Keeps a queued job from starting; a running one stops at its next step, whose state is kept where jobs resume."""
    require_unchanged(session, job_id, if_match)
    return show_job(session, request_pause(session, job_id))


@router.post("/{job_id}/resume", dependencies=[MAKES_RUNNABLE], responses=CHANGED)
def resume(job_id: JobId, session: WriteSession, limits: Limits | None = None, if_match: IfMatch = None) -> Job:
    """Lets a paused job go on where it was; one that has reached a limit needs that limit raised."""
    require_unchanged(session, job_id, if_match)
    return show_job(session, resume_job(session, job_id, limits))


@router.get("/{job_id}/events")
def events(job_id: JobId, session: ReadSession, after: After = 0) -> EventPage:
    """The job's history after an event, oldest first."""
    return EventPage(items=list_events(session, find_job(session, job_id).id, after))


@router.get("/{job_id}/events/stream", response_class=EventSourceResponse)
async def stream(
    job_id: Existing, streams: Streams, token: Token, after: After = 0, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """The job's history after an event as server-sent events, as it happens, until the job is over."""
    start = after if last_event_id is None else last_event_id
    async for event in streams.follow(token, job_id, start):
        yield event


@router.get("/{job_id}/logs", response_class=PlainTextResponse)
def logs(_: StoreRead, job_id: Existing, parts: AllParts, attempt: Epoch = None) -> str:
    """What an attempt, or the latest, printed so far; without Ray, until it was last copied."""
    return read_logs(parts.database, parts.store, parts.ray, job_id, attempt)
