"""What workers report, each with the token of its attempt. 409: the lease is lost, stop and write nothing more."""

from fastapi import APIRouter, status

from services.client.attempt_schemas import (
    Assignment,
    AttemptFailure,
    AttemptStatus,
    AttemptSuccess,
    CheckpointRef,
    Heartbeat,
    TicketRedemption,
    WorkerEvents,
)
from services.client.schemas import SubmissionId
from services.control_plane.dependencies import MAKES_RUNNABLE, Token, WorkerSession
from services.storage import worker_writes

router = APIRouter(prefix="/attempts/{submission_id}", tags=["attempts"])


@router.post("/redeem")
def redeem(submission_id: SubmissionId, redemption: TicketRedemption, session: WorkerSession) -> Assignment:
    """The assignment and its token, in exchange for the ticket, which works once."""
    return worker_writes.redeem_ticket(session, submission_id, redemption.ticket)


@router.post("/heartbeat")
def heartbeat(submission_id: SubmissionId, beat: Heartbeat, session: WorkerSession, token: Token) -> AttemptStatus:
    """Extends the lease."""
    return worker_writes.heartbeat(session, submission_id, token, beat)


@router.post("/events")
def events(submission_id: SubmissionId, events: WorkerEvents, session: WorkerSession, token: Token) -> AttemptStatus:
    """Appends events; those delivered before are left out."""
    return worker_writes.report_events(session, submission_id, token, events.items)


@router.post("/checkpoint")
def checkpoint(
    submission_id: SubmissionId, checkpoint: CheckpointRef, session: WorkerSession, token: Token
) -> AttemptStatus:
    """Makes an uploaded blob the newest checkpoint."""
    return worker_writes.add_checkpoint(session, submission_id, token, checkpoint)


@router.post("/succeed", status_code=status.HTTP_204_NO_CONTENT, dependencies=[MAKES_RUNNABLE])
def succeed(submission_id: SubmissionId, success: AttemptSuccess, session: WorkerSession, token: Token) -> None:
    """Ends the job with everything that it made."""
    worker_writes.succeed(session, submission_id, token, success)


@router.post("/fail", status_code=status.HTTP_204_NO_CONTENT)
def fail(submission_id: SubmissionId, failure: AttemptFailure, session: WorkerSession, token: Token) -> None:
    """Ends the attempt; the job is tried again where the reason allows it."""
    worker_writes.fail(session, submission_id, token, failure.reason)


@router.post("/stopped", status_code=status.HTTP_204_NO_CONTENT)
def stopped(submission_id: SubmissionId, session: WorkerSession, token: Token) -> None:
    """Acknowledges the request to stop: the job was cancelled, or is paused."""
    worker_writes.acknowledge_stop(session, submission_id, token)
