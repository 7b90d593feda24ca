"""Who may do what: a session is given to a request with a token of sufficient scope, and sees that token's project.

Users show tokens of their own, or JWTs of the identity provider, workers the token of their attempt, which may read
what its project may, and the profiler shows the secret that it shares with the control plane, which may read documents
of any project.
"""

import hmac
from collections.abc import Iterable

from sqlalchemy.orm import Session

from services.client.schemas import Scope
from services.control_plane.identity_provider import IdentityProvider
from services.control_plane.settings import Settings
from services.storage.errors import DomainError, Forbidden
from services.storage.projects import narrow
from services.storage.tokens import Admission, find_token, good_tokens
from services.storage.worker_writes import authorize, authorized
from services.telemetry.logs import note


def admit(session: Session, secret: str, needed: Scope, provider: IdentityProvider | None) -> Admission:
    """What who shows this secret is let in to; the session is narrowed to that project.

    Raises:
        NotAuthorized: the secret is nobody's, or no longer valid.
        LeaseLost: it is that of an attempt which is over.
        Forbidden: its scope does not cover what is needed.
        Unavailable: it is a JWT whose key is not known while the identity provider is away.
    """
    # First, while the session holds no connection: the provider may have to be asked for its keys.
    admission = provider.admit(secret) if provider is not None else None
    if admission is None:
        admission = _of_row(session, secret)
    narrow(session, admission.project)
    note(project=admission.project)
    if not admission.scope.covers(needed):
        raise Forbidden(f"this needs a token of scope {needed}, not {admission.scope}")
    return admission


def enter(session: Session, admission: Admission, project: str) -> None:
    """Narrows a session to a project, which is another's only for an operator.

    Raises:
        Forbidden: who asks is none, and was let in to another project.
    """
    if project != admission.project and not admission.scope.covers(Scope.OPERATOR):
        raise Forbidden(f"only an operator asks for another project; this token is of {admission.project}")
    narrow(session, project)


def still_admitted(session: Session, secrets: Iterable[str], provider: IdentityProvider | None) -> set[str]:
    """Those of the secrets, which were let in before, that still are: asked for together."""
    admitted: set[str] = set()
    rest: set[str] = set()
    for secret in secrets:
        try:
            of_provider = provider is not None and provider.admit(secret) is not None
        except DomainError:
            continue
        (admitted if of_provider else rest).add(secret)
    return admitted | good_tokens(session, rest) | authorized(session, rest)


def is_profilers(settings: Settings, secret: str) -> bool:
    """Whether a secret is what the profiler shows."""
    return hmac.compare_digest(settings.profiler_token.get_secret_value().encode(), secret.encode())


def _of_row(session: Session, secret: str) -> Admission:
    """What a user's token, or an attempt's, admits to."""
    token = find_token(session, secret)
    if token is None:
        return Admission(project=authorize(session, secret), scope=Scope.READ, is_worker=True)
    return Admission(project=token.project, scope=token.scope, user=token.id, expires_at=token.expires_at, token=token)
