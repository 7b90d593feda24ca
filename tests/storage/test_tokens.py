"""Which of the tokens that were shown are good."""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.client.schemas import Scope, TokenSubmission
from services.storage.database import Database, database_now
from services.storage.tables import FIRST_PROJECT, TokenRow
from services.storage.tokens import Admission, create_token, good_tokens, revoke_token

OPERATOR = Admission(project=FIRST_PROJECT, scope=Scope.OPERATOR)


def a_token(session: Session, days: int | None = None) -> tuple[str, str]:
    """The id and the secret of a token that lasts, or does for so many days."""
    made = create_token(session, TokenSubmission(name="a watcher", scope=Scope.READ, days=days), OPERATOR)
    return made.record.id, made.secret


def test_tokens_are_good_until_they_are_revoked_or_expire(database: Database):
    with database.writing.begin() as session:
        _, lasts = a_token(session)
        _, lasts_a_day = a_token(session, days=1)
        revoked_id, revoked = a_token(session)
        expired_id, expired = a_token(session, days=1)
        revoke_token(session, revoked_id, OPERATOR)
        ago = database_now(session) - timedelta(seconds=1)
        session.execute(update(TokenRow).where(TokenRow.id == expired_id).values(expires_at=ago))

        good = good_tokens(session, [lasts, lasts_a_day, revoked, expired, "nobody's"])

    assert good == {lasts, lasts_a_day}
