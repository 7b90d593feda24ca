"""The tokens of users: random, shown once, kept as digests, each of one project and scope."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from services.client.schemas import Scope, TokenRecord, TokenSecret, TokenSubmission
from services.storage.attempts import secret_digest
from services.storage.database import database_now, insert_if_absent, new_id
from services.storage.errors import Forbidden, NotAuthorized, NotFound
from services.storage.tables import FIRST_PROJECT, TokenRow

PREFIX = "fasterseg-"  # so that a token that leaked is known for one
SHORTEST_SECRET = 16
USE_SECONDS = 3600.0  # between notes of a token's use


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Who was let in, whatever was shown: to which project, for what, and until when."""

    project: str
    scope: Scope
    user: str | None = None  # the token's id, or `oidc:` and the JWT's subject; none of an attempt's token
    expires_at: datetime | None = None
    token: TokenRow | None = None  # where one of these tokens was shown
    is_worker: bool = False  # an attempt's token was


def create_token(session: Session, submission: TokenSubmission, by: Admission) -> TokenSecret:
    """A new token with its secret; it does not outlive the one that was shown for it.

    Raises:
        Forbidden: its scope is above that of who asks, or its project is another and who asks is no operator.
    """
    project = submission.project or by.project
    if not by.scope.covers(submission.scope):
        raise Forbidden(f"a token of scope {by.scope} cannot give the scope {submission.scope}")
    if project != by.project and not by.scope.covers(Scope.OPERATOR):
        raise Forbidden(f"only an operator gives tokens of another project; this one is of {by.project}")
    now = database_now(session)
    secret = PREFIX + secrets.token_urlsafe(32)
    ends = [now + timedelta(days=submission.days)] if submission.days is not None else []
    ends += [by.expires_at] if by.expires_at is not None else []
    row = TokenRow(
        id=new_id(),
        project=project,
        name=submission.name,
        scope=submission.scope,
        secret_hash=secret_digest(secret),
        created_at=now,
        created_by=by.user,
        expires_at=min(ends, default=None),
    )
    session.add(row)
    session.flush()
    return TokenSecret(record=_record(row), secret=secret)


def keep_first_token(session: Session, secret: str) -> None:
    """Makes a secret a token of the first project that may do everything; twice changes nothing.

    Raises:
        ValueError: it is short enough to be guessed.
    """
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"the first token needs at least {SHORTEST_SECRET} characters: `openssl rand -hex 32` makes one"
        )
    insert_if_absent(
        session,
        TokenRow,
        id=new_id(),
        project=FIRST_PROJECT,
        name="first",
        scope=Scope.OPERATOR,
        secret_hash=secret_digest(secret),
        created_at=database_now(session),
    )


def find_token(session: Session, secret: str) -> TokenRow | None:
    """The token of a secret; none where there is no such token.

    Raises:
        NotAuthorized: it was revoked, or has expired.
    """
    row = session.scalar(select(TokenRow).where(TokenRow.secret_hash == secret_digest(secret)))
    if row is None:
        return None
    if row.revoked_at is not None:
        raise NotAuthorized("this token was revoked")
    if row.expires_at is not None and row.expires_at <= database_now(session):
        raise NotAuthorized("this token has expired")
    return row


def good_tokens(session: Session, secrets: Iterable[str]) -> set[str]:
    """Those of the secrets whose tokens were not revoked and have not expired."""
    by_digest = {secret_digest(secret): secret for secret in secrets}
    lasts = or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > database_now(session))
    good = select(TokenRow.secret_hash).where(TokenRow.secret_hash.in_(by_digest), TokenRow.revoked_at.is_(None), lasts)
    return {by_digest[digest] for digest in session.scalars(good)}


def is_use_worth_noting(session: Session, token: TokenRow) -> bool:
    """Whether no use of it was noted for an hour: a note is a write, and most requests only read."""
    return token.last_used_at is None or database_now(session) - token.last_used_at > timedelta(seconds=USE_SECONDS)


def note_use(session: Session, token_id: str) -> None:
    """Notes that a token is used now."""
    session.execute(update(TokenRow).where(TokenRow.id == token_id).values(last_used_at=database_now(session)))


def list_tokens(session: Session, project: str) -> list[TokenRecord]:
    """The tokens of a project, oldest first."""
    own = select(TokenRow).where(TokenRow.project == project).order_by(TokenRow.created_at, TokenRow.id)
    return [_record(row) for row in session.scalars(own)]


def revoke_token(session: Session, token_id: str, by: Admission) -> TokenRecord:
    """The token, good for nothing from now on.

    Raises:
        NotFound: the project has none of this id.
        Forbidden: its scope is above that of who asks.
    """
    row = session.scalar(select(TokenRow).where(TokenRow.id == token_id, TokenRow.project == by.project))
    if row is None:
        raise NotFound(f"there is no token {token_id}")
    if not by.scope.covers(row.scope):
        raise Forbidden(f"a token of scope {by.scope} cannot revoke one of scope {row.scope}")
    row.revoked_at = row.revoked_at or database_now(session)
    return _record(row)


def _record(row: TokenRow) -> TokenRecord:
    return TokenRecord.model_validate(row, from_attributes=True)
