"""Blobs that the service does not hand out itself: it links to a store."""

import io
from collections.abc import Iterator

import httpx
import pytest

from services.client.errors import CorruptArtifactError, ProblemError, StoreError, UnexpectedAnswerError
from services.client.transport import CHUNK_BYTES, connect, receive, send
from tests.client.fake_control_plane import sha256

SERVICE, STORE = "https://service.test", "https://store.test:9000"
SIGNED = "X-Amz-Signature=as-good-as-a-token"
TOKEN = "the token of the project"
BODY = b"weights"

Answer = httpx.Response | httpx.TransportError


def a_link(address: str = STORE, status: int = 307) -> httpx.Response:
    return httpx.Response(status, headers={"Location": f"{address}/bucket/blobs/{sha256(BODY)}?{SIGNED}"})


def a_refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(
        status, text=f"<Error><Code>{code}</Code><SignatureProvided>{SIGNED}</SignatureProvided></Error>"
    )


class CutOff(httpx.SyncByteStream):
    """A longer body, whose connection is lost."""

    def __iter__(self) -> Iterator[bytes]:
        yield bytes(CHUNK_BYTES)
        raise httpx.ReadError("reset")


class Exchange:
    """Answers in turn, and keeps what was asked and slept."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def download(self, service: str = SERVICE) -> bytes:
        """What a client gets under BODY's digest."""
        file = io.BytesIO()
        with connect(service, timeout=7.0, token=TOKEN, transport=httpx.MockTransport(self.answer)) as http:
            receive(http, sha256(BODY), file, timeout=70.0, patience_seconds=60.0, sleep=self.slept.append)
        return file.getvalue()


def test_a_link_is_followed_without_the_token() -> None:
    exchange = Exchange(a_link(), httpx.Response(200, content=BODY))

    assert exchange.download() == BODY
    asked, followed = exchange.requests
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (followed.method, followed.url.host, followed.url.query.decode()) == ("GET", "store.test", SIGNED)
    assert followed.headers == httpx.Headers({"Host": "store.test:9000"}), "nothing of the first request goes on"
    assert followed.extensions["timeout"]["read"] == 70.0


def test_a_link_leaves_no_encryption_behind() -> None:
    exchange = Exchange(a_link("http://store.test"), httpx.Response(200, content=BODY))

    with pytest.raises(UnexpectedAnswerError, match="links to http://store.test, which is not encrypted"):
        exchange.download()
    assert len(exchange.requests) == 1


@pytest.mark.parametrize("store", ["http://store.test", "https://store.test"])
def test_from_a_service_without_tls_a_link_may_lead_to_either(store: str) -> None:
    assert Exchange(a_link(store), httpx.Response(200, content=BODY)).download("http://service.test") == BODY


@pytest.mark.parametrize("status", [301, 302, 307])
def test_the_store_refers_to_nobody_else(status: int) -> None:
    exchange = Exchange(a_link(), a_link("https://elsewhere.test", status))

    with pytest.raises(StoreError, match=f"{STORE} did not hand out.*{status}"):
        exchange.download()
    assert [request.url.host for request in exchange.requests] == ["service.test", "store.test"]


@pytest.mark.parametrize("status", [301, 302, 303, 308])
def test_another_redirection_of_the_service_is_a_refusal(status: int) -> None:
    exchange = Exchange(a_link(status=status))

    with pytest.raises(ProblemError):
        exchange.download()
    assert len(exchange.requests) == 1


def test_nothing_but_a_blob_is_taken_from_elsewhere() -> None:
    exchange = Exchange(a_link())

    with (
        connect(SERVICE, timeout=7.0, transport=httpx.MockTransport(exchange.answer)) as http,
        pytest.raises(ProblemError) as refused,
    ):
        send(http, http.build_request("GET", "jobs"), patience_seconds=0.0)

    assert refused.value.status == 307
    assert len(exchange.requests) == 1


def test_what_the_store_hands_out_is_verified() -> None:
    with pytest.raises(CorruptArtifactError, match="the store's copy is damaged"):
        Exchange(a_link(), httpx.Response(200, content=b"weightz")).download()


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        a_refusal(503, "SlowDown"),
        a_refusal(500, "InternalError"),
        httpx.Response(200, stream=CutOff()),
    ],
    ids=["away", "busy", "failing", "cut off"],
)
def test_a_store_that_fails_is_asked_again_under_another_link(fault: Answer) -> None:
    exchange = Exchange(a_link(), fault, a_link("https://replica.test"), httpx.Response(200, content=BODY))

    assert exchange.download() == BODY
    assert [request.url.host for request in exchange.requests] == [
        "service.test",
        "store.test",
        "service.test",
        "replica.test",
    ]
    assert exchange.slept == [0.1]


@pytest.mark.parametrize(
    ("answer", "cause", "code"),
    [
        (a_refusal(403, "SignatureDoesNotMatch"), "403 SignatureDoesNotMatch", "SignatureDoesNotMatch"),
        (a_refusal(404, "NoSuchKey"), "404 NoSuchKey", "NoSuchKey"),
        (httpx.Response(409, text="a proxy's"), "409 Conflict", None),
    ],
)
def test_a_refusal_of_the_store_is_told_without_the_link(answer: httpx.Response, cause: str, code: str | None) -> None:
    exchange = Exchange(a_link(), answer)

    with pytest.raises(StoreError) as refused:
        exchange.download()

    assert f"{STORE} did not hand out what the service links to ({cause})" in str(refused.value)
    assert "FASTERSEG_S3_PUBLIC_URL" in str(refused.value)
    assert SIGNED not in str(refused.value)
    assert refused.value.code == code
    assert exchange.slept == []
