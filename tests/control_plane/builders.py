"""What tests of the control plane need ready made."""

from prometheus_client import CollectorRegistry

from services.control_plane.dispatcher import Dispatcher
from services.control_plane.parts import Parts


def a_dispatcher(parts: Parts, **changes: object) -> Dispatcher:
    """One of the instance `test`, on these parts."""
    values = {
        "database": parts.database,
        "store": parts.store,
        "ray": parts.ray,
        "instance": "test",
        "max_running_jobs": 2,
        "max_running_jobs_per_project": None,
        "cancel_grace_seconds": 60,
        "registry": CollectorRegistry(),
    }
    return Dispatcher(**{**values, **changes})
