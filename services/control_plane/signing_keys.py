"""The public keys of an identity provider, read from where its discovery document says they are, and kept."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Annotated

import httpx
from jwt import PyJWK, PyJWKSet, PyJWTError
from pydantic import BaseModel, JsonValue, StringConstraints

from services.storage.errors import NotAuthorized, Unavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEPT_SECONDS = 600.0  # after which the keys are read again, so that one that was withdrawn is refused

_log = logging.getLogger(__name__)


class SigningKeys:
    """An issuer's keys by their ids. No address but the issuer's, and the one that it names itself, is ever asked.

    One request at a time waits for the issuer; where it does not answer, what was read before goes on to serve.
    """

    def __init__(
        self, issuer: str, http: httpx.Client, *, refresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._http = http
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, PyJWK] = {}
        self._asked_at = self._read_at = -math.inf  # equal, unless the last answer is missing

    def find(self, key_id: str) -> PyJWK:
        """The key of an id.

        Raises:
            NotAuthorized: the issuer, asked within `refresh_seconds`, has no such key.
            Unavailable: no such key was read before, and the issuer does not answer, or has not yet.
        """
        asked_at = self._asked_now(key_id)
        if asked_at is not None:
            self._ask(asked_at)
        has_answered = self._read_at == self._asked_at  # looked at before the keys: another thread may replace them
        if key_id in (keys := self._keys):
            return keys[key_id]
        if has_answered:
            raise NotAuthorized("this token's key is none of its issuer's")
        raise Unavailable("the identity provider does not answer, and this token's key was not read before")

    def _asked_now(self, key_id: str) -> float | None:
        """The time, where it is up to this request to ask the issuer."""
        with self._lock:
            now = self._clock()
            is_wanted = key_id not in self._keys or now - self._read_at > KEPT_SECONDS
            if not is_wanted or now - self._asked_at <= self._refresh_seconds:
                return None
            self._asked_at = now
            return now

    def _ask(self, asked_at: float) -> None:
        try:
            self._keys = self._read()
        except (httpx.HTTPError, httpx.InvalidURL, PyJWTError, ValueError, TypeError) as error:
            _log.warning("the keys of %s cannot be read: %s", self._issuer, error)
        else:
            self._read_at = asked_at

    def _read(self) -> dict[str, PyJWK]:
        discovery = _Discovery.model_validate_json(
            self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        )
        if discovery.issuer != self._issuer:
            raise ValueError("its discovery document is another issuer's")
        documents = _KeySet.model_validate_json(self._get(discovery.jwks_uri)).keys
        return {
            key.key_id: key
            for key in PyJWKSet(documents).keys
            if key.key_id is not None and key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
        }

    def _get(self, url: str) -> bytes:
        return self._http.get(url).raise_for_status().content


class _Discovery(BaseModel):
    issuer: str
    jwks_uri: Annotated[str, StringConstraints(pattern=r"^https://")]


class _KeySet(BaseModel):
    keys: list[dict[str, JsonValue]]
