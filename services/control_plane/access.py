"""Who may do what: a session is given to a request with a token of sufficient scope, and sees that token's project.

Users show tokens of their own, workers the token of their attempt, which may read what its project may, and the
profiler shows the secret that it shares with the control plane, which may read documents of any project.
"""

import hmac

from sqlalchemy.orm import Session

from services.client.schemas import Scope
from services.control_plane.settings import Settings
from services.storage.errors import Forbidden
from services.storage.projects import narrow
from services.storage.tables import TokenRow
from services.storage.tokens import find_token
from services.storage.worker_writes import authorize


def admit(session: Session, secret: str, needed: Scope) -> TokenRow | None:
    """The token of who shows this secret, None of a worker; the session is narrowed to its project.

    Raises:
        NotAuthorized: the secret is nobody's, or no longer valid.
        LeaseLost: it is that of an attempt which is over.
        Forbidden: its scope does not cover what is needed.
    """
    token = find_token(session, secret)
    narrow(session, authorize(session, secret) if token is None else token.project)
    scope = Scope.READ if token is None else token.scope
    if not scope.covers(needed):
        raise Forbidden(f"this needs a token of scope {needed}, not {scope}")
    return token


def is_profilers(settings: Settings, secret: str) -> bool:
    """Whether a secret is what the profiler shows."""
    return hmac.compare_digest(settings.profiler_token.get_secret_value().encode(), secret.encode())
