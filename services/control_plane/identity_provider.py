"""JWTs of an identity provider (OpenID Connect), let in beside our own tokens: claims name project and scope.

The times in them are read by this machine's clock, not by the database's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt
from pydantic import JsonValue, TypeAdapter, ValidationError

from services.client.schemas import Project, Scope
from services.control_plane.signing_keys import ALGORITHMS, SigningKeys
from services.storage.errors import Forbidden, NotAuthorized
from services.storage.tokens import Admission

MAX_CHARACTERS = 16 * 1024  # of a token
LEEWAY_SECONDS = 30  # by which the issuer's clock may be another
LONGEST_SUBJECT = 255  # characters, of OpenID Connect's
LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()  # that a date can have

_PROJECT = TypeAdapter[str](Project)


@dataclass(frozen=True, kw_only=True)
class IdentityProvider:
    """Whose JWTs are let in: those of one issuer, signed by its keys and meant for one audience."""

    issuer: str
    audience: str
    keys: SigningKeys
    project_claim: str
    scope_claim: str
    scopes: Mapping[str, Scope]  # by the values of the scope claim

    def admit(self, secret: str) -> Admission | None:
        """What a JWT admits to; None where the secret is no JWT.

        Raises:
            NotAuthorized: it is not signed by the issuer, meant for others, not valid now, or does not say whose it is.
            Forbidden: it names no project, or no scope.
            Unavailable: its key is not known, and the identity provider does not answer.
        """
        if len(secret) > MAX_CHARACTERS:
            raise NotAuthorized(f"a token has at most {MAX_CHARACTERS} characters")
        try:
            header = jwt.get_unverified_header(secret)
        except jwt.PyJWTError:
            return None
        if "kid" not in header:
            raise NotAuthorized("this token does not say which key it was signed with: its header needs a `kid`")
        claims = self._verified(secret, header["kid"])
        return Admission(
            project=self._project(claims),
            scope=self._scope(claims),
            user=f"oidc:{_subject(claims)}",
            expires_at=datetime.fromtimestamp(min(float(str(claims["exp"])), LAST_SECOND), UTC),
        )

    def _verified(self, secret: str, key_id: str) -> dict[str, JsonValue]:
        key = self.keys.find(key_id)
        try:
            claims: dict[str, JsonValue] = jwt.decode(
                secret,
                key,
                algorithms=ALGORITHMS,
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iat", "iss", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            raise NotAuthorized(f"this token of the identity provider is refused: {error}") from error
        return claims

    def _project(self, claims: dict[str, JsonValue]) -> str:
        try:
            return _PROJECT.validate_python(claims.get(self.project_claim))
        except ValidationError as error:
            raise Forbidden(
                f"the claim {self.project_claim!r} of this token must name a project: small letters, digits and dashes"
            ) from error

    def _scope(self, claims: dict[str, JsonValue]) -> Scope:
        """The highest that the claim names, as a list or as words."""
        value = claims.get(self.scope_claim)
        values = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        scopes = [self.scopes[name] for name in values if isinstance(name, str) and name in self.scopes]
        if not scopes:
            raise Forbidden(f"the claim {self.scope_claim!r} of this token has none of: {', '.join(self.scopes)}")
        return max(scopes, key=list(Scope).index)


def _subject(claims: dict[str, JsonValue]) -> str:
    """Whose token it is: unique at the issuer, and never given to another."""
    subject = str(claims["sub"])
    if not (subject.isascii() and subject.isprintable() and 0 < len(subject) <= LONGEST_SUBJECT):
        raise NotAuthorized(f"the claim 'sub' of this token must have 1 to {LONGEST_SUBJECT} ASCII characters")
    return subject
