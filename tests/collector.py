"""An OpenTelemetry collector in the test's process: it keeps the spans that are sent to it, by OTLP over HTTP."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.http_handlers import handling

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class ToldSpan:
    """A span as it arrived; ids in hex, times in nanoseconds."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str  # empty for the first of a trace
    attributes: dict[str, str | int]
    is_error: bool
    begun: int
    ended: int

    def is_named_by(self, traceparent: str | None) -> bool:
        """Whether a header is about it."""
        return (traceparent or "").startswith(f"00-{self.trace_id}-{self.span_id}-")


class Collector:
    """What was told to it. While it hangs it takes what is sent and answers nothing."""

    def __init__(self) -> None:
        self.address = ""
        self._changed = threading.Condition()
        self._spans: list[ToldSpan] = []
        self._asked = 0
        self._hangs = False

    @property
    def spans(self) -> list[ToldSpan]:
        with self._changed:
            return list(self._spans)

    def hang(self) -> None:
        self._hangs = True

    def go_on(self) -> None:
        with self._changed:
            self._hangs = False
            self._changed.notify_all()

    def wait_until_asked(self) -> None:
        """Returns once something was sent."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked, PATIENCE_SECONDS), "nobody asked"

    def wait_for(self, is_wanted: Callable[[ToldSpan], bool]) -> ToldSpan:
        """The first span of a kind, once it has been told."""
        with self._changed:
            found = self._changed.wait_for(lambda: next(filter(is_wanted, self._spans), None), PATIENCE_SECONDS)
        assert isinstance(found, ToldSpan), f"only told of {[span.name for span in self._spans]}"
        return found

    def take(self, body: bytes) -> None:
        """Keeps what was sent, once it does not hang."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._hangs, PATIENCE_SECONDS)
            self._spans += _told(ExportTraceServiceRequest.FromString(body))
            self._changed.notify_all()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at an address of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with handling(Handler) as collector.address:
        try:
            yield collector
        finally:
            collector.go_on()


def _told(request: ExportTraceServiceRequest) -> Iterator[ToldSpan]:
    for group in request.resource_spans:
        process = str(_values(group.resource.attributes)["service.name"])
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ToldSpan(
                    process=process,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_values(span.attributes),
                    is_error=span.status.code == Status.STATUS_CODE_ERROR,
                    begun=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                )


def _values(attributes: list[KeyValue]) -> dict[str, str | int]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in attributes}
