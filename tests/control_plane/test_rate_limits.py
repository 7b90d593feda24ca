"""How often anyone may ask, by a clock that stands still unless a test moves it."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from services.control_plane import rate_limits
from services.control_plane.app import PREFIX, create_app
from services.control_plane.parts import Parts
from services.control_plane.rate_limits import Buckets, RateLimits
from services.storage.attempts import open_attempt
from services.storage.database import Database
from services.storage.jobs import claim_job
from services.storage.tokens import keep_first_token
from tests.clock import FakeClock
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.storage.builders import a_job, a_started_worker

BURST, FAILURES = 6, 3
OTHER_TOKEN = "the token of another user"


Ask = Callable[..., int]


@pytest.fixture
def limited(parts: Parts, clock: FakeClock) -> Iterator[TestClient]:
    """A control plane that gives two requests a second, and three refused tokens a minute."""
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
        keep_first_token(session, OTHER_TOKEN)
    limits = {"requests_per_second": 2.0, "request_burst": BURST, "failures_per_minute": FAILURES}
    settings = parts.settings.model_copy(update=limits)
    app = RateLimits(create_app(parts), settings=settings, prefix=PREFIX, clock=clock)
    with TestClient(app, base_url="http://test/api/v1/") as client:
        yield client


@pytest.fixture
def ask(limited: TestClient) -> Ask:
    """The status of a request with a token."""

    def status(token: str = FIRST_TOKEN, path: str = "jobs", method: str = "GET", **values: object) -> int:
        return limited.request(method, path, headers={"Authorization": f"Bearer {token}"}, **values).status_code

    return status


def spend(ask: Ask, token: str = FIRST_TOKEN) -> None:
    """Takes all that a token has; its first request counts for its address."""
    assert [ask(token) for _ in range(1 + BURST)] == [200] * (1 + BURST)


def test_a_burst_is_let_through_and_then_so_many_a_second(ask: Ask, clock: FakeClock) -> None:
    spend(ask)
    assert ask() == 429

    clock.now += 1.0

    assert [ask() for _ in range(3)] == [200, 200, 429]


def test_a_refusal_says_when_to_ask_again(limited: TestClient, ask: Ask) -> None:
    spend(ask)

    refused = limited.get("jobs", headers={"Authorization": f"Bearer {FIRST_TOKEN}"})

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "Too Many Requests"


def test_a_pause_fills_no_more_than_a_bucket(ask: Ask, clock: FakeClock) -> None:
    spend(ask)

    clock.now += 3600.0

    assert [ask() for _ in range(BURST + 1)] == [200] * BURST + [429]


def test_one_token_takes_nothing_from_another(ask: Ask) -> None:
    ask(OTHER_TOKEN)
    spend(ask)

    assert (ask(), ask(OTHER_TOKEN)) == (429, 200)


@pytest.mark.parametrize("written", ["bearer {}", "Bearer  {}"])
def test_a_token_has_one_bucket_however_it_is_shown(limited: TestClient, ask: Ask, written: str) -> None:
    spend(ask)

    assert limited.get("jobs", headers={"Authorization": written.format(FIRST_TOKEN)}).status_code == 429


def test_a_second_header_is_no_second_bucket(limited: TestClient, ask: Ask) -> None:
    spend(ask)
    shown = [("Authorization", f"Bearer {FIRST_TOKEN}"), ("Authorization", "Bearer another")]

    assert limited.get("jobs", headers=shown).status_code == 429


def test_who_shows_no_token_shares_what_his_address_has(limited: TestClient) -> None:
    statuses = [limited.get("http://test/openapi.json").status_code for _ in range(BURST + 1)]

    assert statuses == [200] * BURST + [429]


def test_who_redeems_a_ticket_shows_no_token_that_is_known_from_then_on(
    limited: TestClient, database: Database
) -> None:
    a_job(database)
    with database.writing.begin() as session:
        dispatch = open_attempt(session, claim_job(session), "test")
    redeem = f"attempts/{dispatch.submission_id}/redeem"
    assert limited.post(redeem, json={"ticket": dispatch.ticket}).status_code == 200

    statuses = [limited.get("http://test/openapi.json").status_code for _ in range(BURST)]

    assert statuses == [200] * (BURST - 1) + [429]


def test_made_up_tokens_open_no_buckets(ask: Ask) -> None:
    statuses = [ask(f"made up {number}", "http://test/openapi.json") for number in range(BURST + 1)]

    assert statuses == [200] * BURST + [429]


def test_guessing_is_stopped_and_hinders_nobody_who_is_known(ask: Ask, clock: FakeClock) -> None:
    assert ask() == 200

    assert [ask(f"guess {number}") for number in range(FAILURES + 1)] == [401] * FAILURES + [429]
    assert ask(OTHER_TOKEN) == 429, "not known yet"
    assert ask() == 200

    clock.now += 60 / FAILURES
    assert ask(OTHER_TOKEN) == 200


def test_a_token_that_was_revoked_is_a_guess(limited: TestClient, ask: Ask) -> None:
    first = {"Authorization": f"Bearer {FIRST_TOKEN}"}
    made = limited.post("tokens", json={"name": "leaked", "scope": "read"}, headers=first).json()
    assert ask(made["secret"]) == 200
    limited.delete(f"tokens/{made['record']['id']}", headers=first)

    assert [ask(made["secret"]) for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]


@pytest.mark.parametrize(("path", "status"), [("health", 200), ("health/live", 204)])
def test_health_is_told_to_everyone(limited: TestClient, path: str, status: int) -> None:
    assert {limited.get(path).status_code for _ in range(3 * BURST)} == {status}


def test_the_profiler_reads_as_much_as_estimates_need(ask: Ask) -> None:
    statuses = {ask(PROFILER_TOKEN, f"architectures/{'a' * 64}") for _ in range(3 * BURST)}

    assert statuses == {404}


def test_a_worker_reports_as_often_as_it_has_to(ask: Ask, database: Database) -> None:
    a_job(database)
    worker = a_started_worker(database)
    heartbeat = f"attempts/{worker.submission_id}/heartbeat"

    assert {ask(worker.token, heartbeat, "POST", json={}) for _ in range(3 * BURST)} == {200}


def test_who_guesses_attempts_tokens_is_stopped(ask: Ask, database: Database) -> None:
    a_job(database)
    worker = a_started_worker(database)
    heartbeat = f"attempts/{worker.submission_id}/heartbeat"

    statuses = [ask(f"guess {number}", heartbeat, "POST", json={}) for number in range(FAILURES + 1)]

    assert statuses == [401] * FAILURES + [429]


def test_buckets_are_bounded_and_the_least_used_goes_first(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_BUCKETS", 3)
    buckets = Buckets(per_second=1.0, burst=1, clock=clock)

    for key in ("a", "b", "c"):
        buckets.take(key)
    buckets.know("a")
    buckets.take("d")

    assert (len(buckets), "a" in buckets, "b" in buckets) == (3, True, False)
