from collections.abc import Iterator

import httpx
import pytest

from services.client.client import FasterSegClient
from services.client.errors import ProblemError, UnexpectedAnswerError, UnreachableError
from services.client.schemas import Event, EventPage, JobState
from tests.client.fake_control_plane import NOW, a_job

EVENTS = [
    Event(sequence=n, kind="epoch", epoch=1, data={"text": "a line\u2028and another\x85"}, created_at=NOW)
    for n in (1, 2, 3, 4)
]
LOST = httpx.ReadError("connection reset")


class Streaming(httpx.BaseTransport):
    """Plays one script a stream, events or an error that breaks it; after the last one its job is over.

    All its events can be asked for.
    """

    def __init__(self, *scripts: list[Event | httpx.TransportError]) -> None:
        self.scripts = list(scripts)
        self.asked_after: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            rest = [event for event in EVENTS if event.sequence > int(request.url.params["after"])]
            return httpx.Response(200, content=EventPage(items=rest).model_dump_json())
        if not request.url.path.endswith("/stream"):
            state = JobState.RUNNING if self.scripts else JobState.SUCCEEDED
            return httpx.Response(200, content=a_job(state=state).model_dump_json())
        self.asked_after.append(request.headers["Last-Event-ID"])
        return httpx.Response(200, stream=Body(self.scripts.pop(0)))


class Body(httpx.SyncByteStream):
    def __init__(self, script: list[Event | httpx.TransportError]) -> None:
        self._script = script

    def __iter__(self) -> Iterator[bytes]:
        yield b": ping\n\n"
        for step in self._script:
            if isinstance(step, httpx.TransportError):
                raise step
            yield f"event: {step.kind}\ndata: {step.model_dump_json()}\nid: {step.sequence}\n\n".encode()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.client.STREAM_PAUSE_SECONDS", 0.0)


def streamed(transport: httpx.BaseTransport, after: int = 0) -> Iterator[Event]:
    with FasterSegClient("http://service", transport=transport) as client:
        yield from client.stream_events("000000000001", after=after)


def test_events_are_read_until_the_job_is_over():
    transport = Streaming(EVENTS)

    assert list(streamed(transport)) == EVENTS
    assert transport.asked_after == ["0"]


def test_a_lost_connection_is_opened_again_where_it_broke():
    transport = Streaming([*EVENTS[:2], LOST], [LOST], EVENTS[2:])

    assert list(streamed(transport)) == EVENTS
    assert transport.asked_after == ["0", "2", "2"]


def test_a_stream_that_a_restart_ends_early_is_opened_again():
    transport = Streaming(EVENTS[1:3], EVENTS[3:])

    assert list(streamed(transport, after=1)) == EVENTS[1:]
    assert transport.asked_after == ["1", "3"]


@pytest.mark.parametrize("last", [EVENTS[:2], [], [EVENTS[0], LOST]], ids=["early", "at once", "broken"])
def test_what_the_last_stream_has_left_of_a_job_that_is_over_is_read(last: list[Event | httpx.TransportError]):
    transport = Streaming(last)

    assert list(streamed(transport)) == EVENTS
    assert transport.asked_after == ["0"]


def test_nothing_is_left_after_the_last_event():
    assert list(streamed(Streaming([]), after=EVENTS[-1].sequence)) == []


def test_a_service_that_is_busy_when_the_stream_opens_is_asked_again():
    transport = Streaming(EVENTS)
    busy = [httpx.Response(503, headers={"Retry-After": "0"})] * 2

    def answer(request: httpx.Request) -> httpx.Response:
        return busy.pop() if busy and request.url.path.endswith("/stream") else transport.handle_request(request)

    assert list(streamed(httpx.MockTransport(answer))) == EVENTS


def test_an_event_that_cannot_be_read_is_an_unexpected_answer():
    with pytest.raises(UnexpectedAnswerError):
        list(streamed(httpx.MockTransport(lambda _: httpx.Response(200, content=b"data: {}\n\n"))))


def test_a_refusal_is_raised():
    transport = httpx.MockTransport(lambda _: httpx.Response(404))

    with pytest.raises(ProblemError):
        list(streamed(transport))


def test_a_service_that_stays_away_is_unreachable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.client.client.FOLLOW_PATIENCE_SECONDS", 0.0)

    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnreachableError):
        list(streamed(httpx.MockTransport(away)))
