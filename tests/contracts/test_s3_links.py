"""Links to blobs of an S3 store, as a mocked and a real server take them; the mock takes whatever is signed."""

import hashlib
import io
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from services.storage.errors import InvalidRequest
from services.storage.s3_links import S3Links
from tests.contracts.s3_servers import S3Server

BODY = bytes(range(256)) * 8192
DIGEST = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
NAMED = 'attachment; filename="network.onnx"'


def a_bucket(server: S3Server) -> str:
    """The name of one that holds BODY and another blob."""
    store, bucket = server.new_store()
    store.put(DIGEST, io.BytesIO(BODY))
    store.put(OTHER, io.BytesIO(b"other"))
    return bucket


def ask(link: str, method: str = "GET", **values: object) -> httpx.Response:
    return httpx.request(method, link, trust_env=False, **values)


def refusal(link: str, method: str = "GET") -> tuple[int, str]:
    """The status of an answer, and S3's word for it where it has a body."""
    answer = ask(link, method)
    return answer.status_code, answer.text.partition("<Code>")[2].partition("</Code>")[0]


def test_whoever_has_a_link_gets_the_blob_as_a_file_of_its_name(s3_server: S3Server):
    answer = ask(s3_server.links(a_bucket(s3_server)).link(DIGEST, disposition=NAMED))

    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["Content-Disposition"] == NAMED
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_part_of_a_blob_is_handed_out(s3_server: S3Server):
    link = s3_server.links(a_bucket(s3_server)).link(DIGEST, disposition=NAMED)

    answer = ask(link, headers={"Range": "bytes=1000-1009"})

    assert (answer.status_code, answer.content) == (206, BODY[1000:1010])


def test_a_link_leads_to_the_address_and_ends_when_it_is_to():
    moment = datetime(2026, 11, 27, 9, tzinfo=UTC)
    links = S3Links(
        address="https://blobs.example.com:9443/",
        bucket="nas",
        access_key="key",
        secret_key="a secret",
        region="eu-north-1",
        lifetime=timedelta(minutes=15),
        clock=lambda: moment,
    )

    url = urlsplit(links.link(DIGEST, disposition=NAMED))  # sockets beyond this machine are closed: nobody is asked

    assert (url.scheme, url.netloc, url.path) == ("https", "blobs.example.com:9443", f"/nas/blobs/{DIGEST}")
    signed = {name: values for name, (values,) in parse_qs(url.query).items()}
    assert (signed["X-Amz-Date"], signed["X-Amz-Expires"]) == ("20261127T090000Z", "900")
    assert signed["X-Amz-SignedHeaders"] == "host"
    assert signed["X-Amz-Credential"] == "key/20261127/eu-north-1/s3/aws4_request"
    assert "a secret" not in url.query


def test_what_is_no_digest_is_refused(moto: S3Server):
    with pytest.raises(InvalidRequest):
        moto.links("bucket").link("../other", disposition=NAMED)


@pytest.mark.s3
def test_a_link_to_a_blob_that_is_not_there_is_not_found(ceph: S3Server):
    bucket = a_bucket(ceph)
    ceph.store(bucket).delete(DIGEST)

    assert refusal(ceph.links(bucket).link(DIGEST, disposition=NAMED)) == (404, "NoSuchKey")


@pytest.mark.s3
def test_a_link_expires(ceph: S3Server):
    bucket = a_bucket(ceph)
    now = datetime.now(UTC)

    def status(made: datetime) -> int:
        return ask(ceph.links(bucket, clock=lambda: made).link(DIGEST, disposition=NAMED)).status_code

    assert status(now - timedelta(seconds=1)) == 200
    assert status(now - timedelta(seconds=61)) == 403


@pytest.mark.s3
@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_a_link_is_for_reading_alone(ceph: S3Server, method: str):
    bucket = a_bucket(ceph)
    link = ceph.links(bucket).link(DIGEST, disposition=NAMED)

    assert refusal(link, method)[0] == 403
    assert ask(link).content == BODY


@pytest.mark.s3
@pytest.mark.parametrize(
    ("signed", "other"),
    [
        (DIGEST, OTHER),
        ("127.0.0.1", "localhost"),
        ("network.onnx", "another.name"),
        ("X-Amz-Expires=60", "X-Amz-Expires=6000"),
    ],
    ids=["blob", "host", "name", "end"],
)
def test_nothing_of_a_link_can_be_exchanged(ceph: S3Server, signed: str, other: str):
    link = ceph.links(a_bucket(ceph)).link(DIGEST, disposition=NAMED)
    assert link.count(signed) == 1

    assert refusal(link.replace(signed, other)) == (403, "SignatureDoesNotMatch")


@pytest.mark.s3
def test_a_link_of_a_wrong_secret_is_refused(ceph: S3Server):
    bucket = a_bucket(ceph)

    assert refusal(ceph.links(bucket, secret_key="wrong").link(DIGEST, disposition=NAMED)) == (
        403,
        "SignatureDoesNotMatch",
    )
