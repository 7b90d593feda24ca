"""Health of the whole service."""

from fastapi import APIRouter

from services.client.schemas import Health
from services.control_plane.health import check_health
from services.control_plane.parts import AllParts

router = APIRouter(tags=["health"])


@router.get("/health")
def health(parts: AllParts) -> Health:
    """How the database, the store, Ray and the profiler are."""
    return check_health(parts)
