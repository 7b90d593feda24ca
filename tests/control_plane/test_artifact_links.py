"""Downloads that are answered with a link to the S3 store."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient

from services.client.schemas import JobKind
from services.control_plane.app import create_app
from services.control_plane.parts import Parts
from services.control_plane.settings import Settings
from services.control_plane.store import open_links
from services.storage.database import Database
from services.storage.tokens import keep_first_token
from tests.contracts.s3_servers import S3Server
from tests.control_plane.conftest import FIRST_TOKEN, PROFILER_TOKEN
from tests.storage.builders import BLOB, STATE, a_job, a_started_worker, a_trained_job

NETWORK, CHECKPOINT = (f"artifacts/{hashlib.sha256(body).hexdigest()}" for body in (BLOB, STATE))
AS_USER = {"Authorization": f"Bearer {FIRST_TOKEN}"}
WORKERS_ADDRESS = "http://s3.inside:9000"

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(parts: Parts, moto: S3Server) -> Iterator[Serve]:
    """A control plane on a bucket with the blobs of a trained job; which of them have links is to be chosen."""
    store, bucket = moto.new_store()
    links = {"user_links": moto.links(bucket), "worker_links": moto.links(bucket, address=WORKERS_ADDRESS)}
    a_trained_job(parts.database, store)
    with parts.database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    opened: list[TestClient] = []

    def serve(*chosen: str) -> TestClient:
        app = create_app(replace(parts, store=store, **{name: links[name] for name in chosen}))
        opened.append(TestClient(app, base_url="http://test/api/v1/", follow_redirects=False))
        return opened[-1]

    yield serve
    for client in opened:
        client.close()


def as_worker(database: Database) -> dict[str, str]:
    a_job(database, JobKind.PROFILE)
    return {"Authorization": f"Bearer {a_started_worker(database).token}"}


@pytest.mark.parametrize(
    ("path", "body", "disposition"),
    [(NETWORK, BLOB, 'attachment; filename="network.safetensors"'), (CHECKPOINT, STATE, "attachment")],
)
def test_a_user_is_sent_to_the_store_for_a_blob(serve: Serve, path: str, body: bytes, disposition: str) -> None:
    answer = serve("user_links").get(path, headers=AS_USER)

    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    got = httpx.get(answer.headers["Location"], trust_env=False)
    assert (got.content, got.headers["Content-Disposition"]) == (body, disposition)


def test_a_worker_is_sent_to_the_store_as_workers_reach_it(serve: Serve, database: Database, moto: S3Server) -> None:
    api = serve("user_links", "worker_links")

    locations = [api.get(NETWORK, headers=who).headers["Location"] for who in (AS_USER, as_worker(database))]

    assert [httpx.URL(location).netloc.decode() for location in locations] == [moto.endpoint, "s3.inside:9000"]


def test_who_has_no_address_of_the_store_gets_the_blob_itself(serve: Serve, database: Database) -> None:
    workers = as_worker(database)

    for api, who in ((serve("user_links"), workers), (serve("worker_links"), AS_USER)):
        answer = api.get(NETWORK, headers=who)
        assert (answer.status_code, answer.content) == (200, BLOB)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="network.safetensors"'


def test_nobody_gets_a_link_to_what_he_may_not_read(serve: Serve) -> None:
    api = serve("user_links", "worker_links")
    elsewhere = {"name": "stranger", "scope": "operator", "project": "elsewhere"}
    stranger = api.post("tokens", json=elsewhere, headers=AS_USER).json()["secret"]

    answers = [
        api.get(NETWORK),
        api.get(NETWORK, headers={"Authorization": "Bearer of nobody"}),
        api.get(NETWORK, headers={"Authorization": f"Bearer {stranger}"}),
        api.get(f"artifacts/{'0' * 64}", headers=AS_USER),
    ]

    assert [answer.status_code for answer in answers] == [401, 401, 404, 404]
    assert not any("Location" in answer.headers for answer in answers)


def test_links_are_signed_as_the_settings_say() -> None:
    settings = Settings(
        profiler_token=PROFILER_TOKEN,
        s3_endpoint="s3:9000",
        s3_bucket="nas",
        s3_access_key="key",
        s3_secret_key="a secret",
        s3_region="eu-north-1",
        s3_public_url="https://blobs.test",
        s3_link_minutes=5,
    )
    links = open_links(settings, settings.s3_public_url)
    assert links is not None

    link = links.link("0" * 64, disposition="attachment")

    assert link.startswith(f"https://blobs.test/nas/blobs/{'0' * 64}?")
    assert "X-Amz-Expires=300" in link
    assert re.search(r"X-Amz-Credential=key%2F\d{8}%2Feu-north-1%2F", link)
    assert open_links(settings, settings.s3_worker_url) is None


def test_the_link_is_documented(serve: Serve) -> None:
    route = serve().get("http://test/openapi.json").json()["paths"]["/api/v1/artifacts/{sha256}"]["get"]

    assert route["responses"]["307"]["headers"].keys() == {"Location"}
