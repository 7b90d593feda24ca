"""What tests of the control plane need ready made."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from services.client.schemas import Scope
from services.control_plane.dispatcher import Dispatcher
from services.control_plane.parts import Parts

WHAT_SCOPES_MAY = [  # of `ask_for_what_scopes_may`
    (Scope.READ, [True, False, False, False]),
    (Scope.SUBMIT, [True, True, False, False]),
    (Scope.ADMIN, [True, True, True, False]),
    (Scope.OPERATOR, [True, True, True, True]),
]


def ask_for_what_scopes_may(ask: Callable[..., int]) -> list[int]:
    """The status of a request of each scope, from `read` to `operator`."""
    return [
        ask("GET", "jobs"),
        ask("POST", "jobs", json={"kind": "profile", "preset": "quick"}),
        ask("POST", "tokens", json={"name": "other", "scope": "read"}),
        ask("POST", "tokens", json={"name": "other", "scope": "read", "project": "elsewhere"}),
    ]


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
        "traces": parts.traces,
    }
    return Dispatcher(**{**values, **changes})
