"""Who may do what: a session is given to a request with a token of sufficient scope, and sees that token's project.

Users show tokens of their own, workers the token of their attempt, which may read what its project may, and the
profiler shows the secret that it shares with the control plane, which may read everything.
"""

import hmac
from dataclasses import dataclass

from sqlalchemy.orm import Session

from services.client.schemas import Scope
from services.control_plane.settings import Settings
from services.storage.errors import Forbidden
from services.storage.projects import narrow
from services.storage.tokens import find_token, is_use_worth_noting
from services.storage.worker_writes import authorize


@dataclass(frozen=True)
class Caller:
    """What who asks may do, and the token whose use is to be noted, if any."""

    scope: Scope
    noted_token: str | None = None


def admit(session: Session, settings: Settings, secret: str, needed: Scope) -> Caller:
    """Who shows this secret; the session is narrowed to his project.

    Raises:
        NotAuthorized: the secret is nobody's, or no longer valid.
        LeaseLost: it is that of an attempt which is over.
        Forbidden: its scope does not cover what is needed.
    """
    caller = _caller(session, settings, secret)
    if not caller.scope.covers(needed):
        raise Forbidden(f"this needs a token of scope {needed}, not {caller.scope}")
    return caller


def _caller(session: Session, settings: Settings, secret: str) -> Caller:
    token = find_token(session, secret)
    if token is not None:
        narrow(session, token.project)
        return Caller(token.scope, token.id if is_use_worth_noting(session, token) else None)
    if not _is_profilers(settings, secret):
        narrow(session, authorize(session, secret))
    return Caller(Scope.READ)


def _is_profilers(settings: Settings, secret: str) -> bool:
    return hmac.compare_digest(settings.profiler_token.get_secret_value().encode(), secret.encode())
