"""An identity provider that signs what a test wants, with real keys, and answers for its public ones."""

import json
import time
from collections.abc import Mapping

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from services.client.schemas import Scope
from services.control_plane.identity_provider import IdentityProvider
from services.control_plane.signing_keys import SigningKeys

ISSUER = "https://login.example/realms/nas"
AUDIENCE = "fasterseg"
KEYS_URL = "https://keys.example/nas.json"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def an_ec_jwk(key_id: str, **values: object) -> dict[str, object]:
    return {**json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key())), "kid": key_id, **values}


def an_rsa_jwk(key_id: str, key: rsa.RSAPrivateKey = RSA_KEY, **values: object) -> dict[str, object]:
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": key_id, **values}


class FakeIdentityProvider:
    """Its documents are open to the tests, as is the time by which its keys grow old."""

    def __init__(self) -> None:
        self.discovery: Mapping[str, object] = {"issuer": ISSUER, "jwks_uri": KEYS_URL}
        self.keys: object = [an_rsa_jwk("rsa"), an_ec_jwk("ec")]
        self.is_away = False
        self.asked: list[str] = []
        self.now = 1000.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if self.is_away:
            raise httpx.ConnectTimeout("nobody answers", request=request)
        documents = {f"{ISSUER}/.well-known/openid-configuration": self.discovery, KEYS_URL: {"keys": self.keys}}
        return httpx.Response(200, json=documents[str(request.url)])

    def opened(self, **values: object) -> IdentityProvider:
        """What a control plane holds of it."""
        http = httpx.Client(transport=httpx.MockTransport(self))
        keys = SigningKeys(ISSUER, http, refresh_seconds=30.0, clock=lambda: self.now)
        defaults = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "keys": keys,
            "project_claim": "project",
            "scope_claim": "scope",
            "scopes": {scope.value: scope for scope in Scope},
        }
        return IdentityProvider(**{**defaults, **values})


def a_jwt(
    key: PrivateKeyTypes | str = RSA_KEY,
    algorithm: str | None = "RS256",
    *,
    header: Mapping[str, object] = {"kid": "rsa"},
    left_out: str | None = None,
    **claims: object,
) -> str:
    """A token that is let in to read the project `default`, unless a claim says otherwise."""
    now = int(time.time())
    defaults = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ana",
        "iat": now,
        "exp": now + 300,
        "project": "default",
        "scope": "read",
    }
    shown = {name: value for name, value in {**defaults, **claims}.items() if name != left_out}
    return jwt.encode(shown, key, algorithm=algorithm, headers=dict(header))
