"""Plans: what a submission would be."""

from fastapi import APIRouter

from services.client.schemas import JobSubmission, Plan
from services.control_plane.dependencies import ReadSession
from services.control_plane.plans import plan_job

router = APIRouter(prefix="/plans", tags=["plans"])


@router.post("")
def plan(submission: JobSubmission, session: ReadSession) -> Plan:
    """What a submission would be, its steps, time and memory. Refused as it would be, but for rows that are missing."""
    return plan_job(session, submission)
