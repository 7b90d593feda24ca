from collections.abc import Callable

import httpx
import pytest

from services.client.errors import ProblemError, UnreachableError
from services.client.transport import connect, send


def answering(*answers: httpx.Response | httpx.TransportError) -> httpx.Client:
    remaining = iter(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = next(remaining)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    return connect("http://service.test", timeout=1.0, transport=httpx.MockTransport(handle))


def get(http: httpx.Client, sleep: Callable[[float], None], patience_seconds: float = 60.0) -> httpx.Response:
    return send(http, http.build_request("GET", "health"), patience_seconds=patience_seconds, sleep=sleep)


def test_delays_grow_while_the_service_is_away() -> None:
    slept: list[float] = []
    refusal = httpx.ConnectError("refused")

    with answering(refusal, refusal, refusal, httpx.Response(200)) as http:
        get(http, slept.append)

    assert slept == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize("status", [408, 429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    slept: list[float] = []

    with answering(httpx.Response(status, headers={"Retry-After": "7"}), httpx.Response(200)) as http:
        get(http, slept.append)

    assert slept == [7.0]


def test_a_retry_beyond_patience_is_not_waited_for() -> None:
    slept: list[float] = []

    with (
        answering(httpx.Response(503, headers={"Retry-After": "61"})) as http,
        pytest.raises(ProblemError, match="503 Service Unavailable"),
    ):
        get(http, slept.append)

    assert slept == []


def test_a_refusal_is_not_repeated() -> None:
    slept: list[float] = []

    with answering(httpx.Response(404, text="no such page")) as http, pytest.raises(ProblemError) as refused:
        get(http, slept.append)

    assert refused.value.status == 404
    assert "no such page" in str(refused.value)
    assert slept == []


def test_an_unreachable_service_is_named_with_the_fix() -> None:
    with answering(httpx.ConnectError("refused")) as http, pytest.raises(UnreachableError) as error:
        get(http, lambda seconds: None, patience_seconds=0.0)

    assert "http://service.test" in str(error.value)
    assert "refused" in str(error.value)
    assert "fasterseg up" in str(error.value)
