"""Health of the whole service, and of this process."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, status

from services.client.schemas import Health
from services.control_plane.health import HealthChecks

router = APIRouter(prefix="/health", tags=["health"])


async def _checks(request: Request) -> HealthChecks:
    checks: HealthChecks = request.app.state.health
    return checks


@router.get("")
async def health(checks: Annotated[HealthChecks, Depends(_checks)]) -> Health:
    """How the database, the store, Ray and the profiler are."""
    return await checks.health()


@router.get("/live", status_code=status.HTTP_204_NO_CONTENT)
async def live() -> None:
    """Answers while this process does: where a part is away, another process would miss it, too."""
