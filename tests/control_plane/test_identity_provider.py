"""JWTs of an identity provider: who is let in by one, to what, and who is not."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from jwt.utils import base64url_encode

from services.client.schemas import Scope
from services.control_plane.app import create_app
from services.control_plane.event_stream import EventStreams
from services.control_plane.parts import Parts
from services.storage.database import Database
from services.storage.errors import Unavailable
from services.storage.tokens import keep_first_token
from tests.control_plane.builders import WHAT_SCOPES_MAY, ask_for_what_scopes_may
from tests.control_plane.conftest import FIRST_TOKEN
from tests.control_plane.fake_identity_provider import (
    EC_KEY,
    KEYS_URL,
    RSA_KEY,
    WEAK_KEY,
    FakeIdentityProvider,
    a_jwt,
    an_ec_jwk,
    an_rsa_jwk,
)
from tests.storage.builders import a_job

LONG_AGO, FAR_AWAY = 1_000_000_000, 4_000_000_000
EXPIRED = {"iat": LONG_AGO, "exp": LONG_AGO + 300}
Ask = Callable[..., int]


@pytest.fixture
def provider() -> FakeIdentityProvider:
    return FakeIdentityProvider()


@pytest.fixture
def service(parts: Parts, provider: FakeIdentityProvider) -> Iterator[TestClient]:
    """A control plane that lets in who shows a JWT of the provider."""
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    app = create_app(replace(parts, identity_provider=provider.opened()))
    with TestClient(app, base_url="http://test/api/v1/", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def ask(service: TestClient) -> Ask:
    """The status of a request with a token."""

    def status(token: str, method: str = "GET", path: str = "jobs", **values: object) -> int:
        return service.request(method, path, headers={"Authorization": f"Bearer {token}"}, **values).status_code

    return status


def unsigned(token: str, **header: object) -> str:
    """The same claims under another header, with an empty signature."""
    _, claims, _ = token.split(".")
    return f"{base64url_encode(json.dumps(header).encode()).decode()}.{claims}."


def signed_with_the_public_key() -> str:
    """What a verifier would let in that takes the algorithm from the token."""
    public = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return a_jwt(base64.b64encode(public).decode(), "HS256")


# ---- who is let in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "may"), WHAT_SCOPES_MAY)
def test_a_jwt_may_what_a_token_of_its_scope_may(ask: Ask, scope: Scope, may: list[bool]) -> None:
    statuses = ask_for_what_scopes_may(partial(ask, a_jwt(scope=scope)))

    assert [status < 300 for status in statuses] == may
    assert all(status < 300 or status == 403 for status in statuses)


def test_a_jwt_sees_its_project_alone(ask: Ask, database: Database) -> None:
    job = a_job(database, project="maps")

    assert ask(a_jwt(project="maps"), path=f"jobs/{job}") == 200
    assert ask(a_jwt(project="roads"), path=f"jobs/{job}") == 404


def test_a_key_on_an_elliptic_curve_serves(ask: Ask) -> None:
    assert ask(a_jwt(EC_KEY, "ES256", header={"kid": "ec"})) == 200


def test_one_of_several_audiences_is_enough(ask: Ask) -> None:
    assert ask(a_jwt(aud=["account", "fasterseg"])) == 200


def test_tokens_of_our_own_serve_beside_it(ask: Ask, provider: FakeIdentityProvider) -> None:
    assert ask(FIRST_TOKEN) == 200
    assert ask("no token at all") == 401
    assert provider.asked == []


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ("openid submit", Scope.SUBMIT),
        (["read", "admin", "submit"], Scope.ADMIN),
    ],
)
def test_the_highest_scope_of_those_named_counts(
    provider: FakeIdentityProvider, value: str | list[str], scope: Scope
) -> None:
    admission = provider.opened().admit(a_jwt(scope=value))

    assert admission is not None
    assert admission.scope is scope


def test_claims_and_their_values_are_named_by_the_settings(provider: FakeIdentityProvider) -> None:
    opened = provider.opened(project_claim="team", scope_claim="groups", scopes={"NAS users": Scope.SUBMIT})

    admission = opened.admit(a_jwt(team="maps", groups=["everyone", "NAS users"], project="roads", scope="operator"))

    assert admission is not None
    assert (admission.project, admission.scope) == ("maps", Scope.SUBMIT)


def test_a_token_does_not_outlive_the_jwt_that_made_it(service: TestClient) -> None:
    exp = int(time.time()) + 200
    asked = {"name": "other", "scope": "read", "days": 90}

    made = service.post("tokens", json=asked, headers={"Authorization": f"Bearer {a_jwt(scope='admin', exp=exp)}"})

    assert datetime.fromisoformat(made.json()["record"]["expires_at"]) == datetime.fromtimestamp(exp, UTC)


def test_jobs_and_tokens_say_whose_jwt_made_them(service: TestClient) -> None:
    ana = {"Authorization": f"Bearer {a_jwt(scope='admin', sub='248289761001')}"}
    job = service.post("jobs", json={"kind": "profile", "preset": "quick"}, headers=ana).json()
    token = service.post("tokens", json={"name": "other", "scope": "read"}, headers=ana).json()

    assert (job["created_by"], token["record"]["created_by"]) == ("oidc:248289761001", "oidc:248289761001")


def test_a_jwt_that_never_ends_in_our_time_is_let_in(ask: Ask) -> None:
    assert ask(a_jwt(exp=10**30, scope="admin"), "POST", "tokens", json={"name": "other", "scope": "read"}) == 201


# ---- who is not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(unsigned(a_jwt(), alg="none", kid="rsa"), id="unsigned"),
        pytest.param(unsigned(a_jwt(), alg="RS256", kid="rsa"), id="without its signature"),
        pytest.param(signed_with_the_public_key(), id="HS256 with the public key as its secret"),
        pytest.param(a_jwt(rsa.generate_private_key(public_exponent=65537, key_size=2048)), id="of another key"),
        pytest.param(a_jwt(EC_KEY, "ES256"), id="of another key's algorithm"),
        pytest.param(a_jwt(header={}), id="without a key's id"),
        pytest.param(a_jwt(header={"kid": "unknown"}), id="of an unknown key"),
        pytest.param(a_jwt(header={"kid": "rsa", "crit": ["x"], "x": 1}), id="with a rule that nobody knows"),
        pytest.param(a_jwt(iss="https://elsewhere.example"), id="of another issuer"),
        pytest.param(a_jwt(aud="another service"), id="for others"),
        pytest.param(a_jwt(**EXPIRED), id="expired"),
        pytest.param(a_jwt(nbf=FAR_AWAY), id="not yet valid"),
        pytest.param(a_jwt(iat=FAR_AWAY), id="issued in the future"),
        pytest.param(a_jwt(exp="soon"), id="of an end that is no number"),
        pytest.param(a_jwt(padding="x" * 20_000), id="oversize"),
        pytest.param(a_jwt(sub=""), id="of nobody"),
        pytest.param(a_jwt(sub="a" * 256), id="of a user's id that is too long"),
        pytest.param(a_jwt(sub="ana\x00"), id="of a user's id that no database holds"),
        *(pytest.param(a_jwt(left_out=claim), id=f"without {claim}") for claim in ("iss", "aud", "exp", "iat", "sub")),
    ],
)
def test_a_jwt_is_refused(ask: Ask, token: str) -> None:
    assert ask(token) == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"left_out": "project"},
        {"project": ["default"]},
        {"project": "No Such Name"},
        {"left_out": "scope"},
        {"scope": "openid profile"},
        {"scope": {"read": True}},
        {"scope": [["read"], 1, None]},
    ],
)
def test_a_jwt_without_a_project_or_a_scope_of_ours_may_nothing(service: TestClient, claims: dict[str, object]) -> None:
    answer = service.get("jobs", headers={"Authorization": f"Bearer {a_jwt(**claims)}"})

    assert answer.status_code == 403
    assert "claim" in answer.json()["detail"]


def test_where_no_provider_is_named_a_jwt_is_nobodys(api: TestClient) -> None:
    assert api.get("jobs", headers={"Authorization": f"Bearer {a_jwt()}"}).status_code == 401


def test_no_address_in_a_token_is_asked(ask: Ask, provider: FakeIdentityProvider) -> None:
    header = {
        "kid": "unknown",
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/certificate",
        "jwk": an_rsa_jwk("unknown"),
    }

    assert ask(a_jwt(header=header)) == 401
    assert not any("evil" in address for address in provider.asked)


def test_a_short_key_is_refused(ask: Ask, provider: FakeIdentityProvider) -> None:
    provider.keys = [an_rsa_jwk("weak", WEAK_KEY)]

    with pytest.warns(match="below the minimum"):
        token = a_jwt(WEAK_KEY, header={"kid": "weak"})

    assert ask(token) == 401


# ---- its keys -------------------------------------------------------------------------------------------------------


def test_keys_are_read_once(ask: Ask, provider: FakeIdentityProvider) -> None:
    assert [ask(a_jwt()) for _ in range(3)] == [200] * 3

    assert len(provider.asked) == 2
    assert provider.asked[1] == KEYS_URL


def test_a_key_that_comes_later_is_found(ask: Ask, provider: FakeIdentityProvider) -> None:
    assert ask(a_jwt()) == 200
    provider.keys = [an_rsa_jwk("rsa"), an_ec_jwk("next")]
    token = a_jwt(EC_KEY, "ES256", header={"kid": "next"})

    assert ask(token) == 401, "the issuer was asked a moment ago"
    provider.now += 31

    assert ask(token) == 200


def test_unknown_keys_are_asked_for_once_in_a_while(ask: Ask, provider: FakeIdentityProvider) -> None:
    for number in range(20):
        ask(a_jwt(header={"kid": str(number)}))

    assert len(provider.asked) == 2


def test_a_key_that_was_withdrawn_is_refused_in_the_end(ask: Ask, provider: FakeIdentityProvider) -> None:
    assert ask(a_jwt()) == 200
    provider.keys = [an_ec_jwk("ec")]
    provider.now += 599
    assert ask(a_jwt()) == 200

    provider.now += 2

    assert ask(a_jwt()) == 401


def test_while_the_provider_is_away_the_keys_that_were_read_serve(
    service: TestClient, ask: Ask, provider: FakeIdentityProvider
) -> None:
    assert ask(a_jwt()) == 200
    provider.is_away = True
    provider.now += 3600

    unknown = service.get("jobs", headers={"Authorization": f"Bearer {a_jwt(header={'kid': 'next'})}"})

    assert ask(a_jwt()) == 200
    assert (unknown.status_code, unknown.headers["Retry-After"]) == (503, "5")
    assert ask(FIRST_TOKEN) == 200


def test_a_provider_that_was_away_from_the_start_is_asked_again(ask: Ask, provider: FakeIdentityProvider) -> None:
    provider.is_away = True
    assert [ask(a_jwt()) for _ in range(3)] == [503] * 3
    assert len(provider.asked) == 1

    provider.is_away, provider.now = False, provider.now + 31

    assert ask(a_jwt()) == 200


def test_nobody_waits_for_a_provider_that_another_request_asks(provider: FakeIdentityProvider) -> None:
    opened = provider.opened()
    refused: list[str] = []

    def answer_late(_: object) -> None:
        with pytest.raises(Unavailable, match="does not answer") as refusal:
            opened.admit(a_jwt())
        refused.append(refusal.value.detail)

    opened.keys._http.event_hooks = {"request": [answer_late]}  # as a request that arrives meanwhile

    assert opened.admit(a_jwt()) is not None
    assert len(refused) == 2


@pytest.mark.parametrize(
    "keys",
    [
        None,
        {},
        [],
        ["rsa"],
        [{"kid": "rsa"}],
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}],
        [{"kty": "RSA", "alg": ["RS256"], "kid": "rsa"}],
        [{"kty": "RSA", "n": 1, "e": {}, "kid": "rsa"}],
        [an_rsa_jwk("rsa", use="enc")],
    ],
)
def test_keys_that_serve_for_no_signature_let_nobody_in(ask: Ask, provider: FakeIdentityProvider, keys: object) -> None:
    provider.keys = keys

    assert ask(a_jwt()) in (401, 503)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://elsewhere.example"},
        {"jwks_uri": KEYS_URL.replace("https", "http")},
        {"jwks_uri": None},
    ],
)
def test_a_discovery_document_that_is_wrong_is_no_answer(
    ask: Ask, provider: FakeIdentityProvider, changes: dict[str, object]
) -> None:
    provider.discovery = {**provider.discovery, **changes}

    assert ask(a_jwt()) == 503
    assert KEYS_URL not in provider.asked


# ---- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_ends_with_its_jwt(
    provider: FakeIdentityProvider, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, token = a_job(database), a_jwt()

    async def read() -> list[str | None]:
        stream = EventStreams(database, provider.opened(), poll_seconds=0.01).follow(token, job, 0)
        first = (await anext(stream)).event
        monkeypatch.setattr("jwt.api_jwt.datetime", an_hour_later)
        return [first, *[event.event async for event in stream]]

    assert asyncio.run(asyncio.wait_for(read(), timeout=20)) == ["queued"]


class an_hour_later:
    """The clock of PyJWT, which takes no other."""

    @staticmethod
    def now(tz: object) -> datetime:
        return datetime.fromtimestamp(time.time() + 3600, UTC)
