"""Spans of this process for an OpenTelemetry collector, by OTLP over HTTP. Imported only where the settings name one.

A thread of its own sends them from a bounded queue: whoever opens a span never waits for a collector, and one that is
away costs the spans that the queue cannot hold. From process to process a span goes as the text of W3C's `traceparent`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

FLUSH_SECONDS = 3.0  # for what is left at the end of a process
COMPLAINT_SECONDS = 60.0  # between lines about a collector


class Span:
    """Something that this process does. It is told once it is ended; one that is never ended is told to nobody."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """What makes other spans this one's children."""
        context = self._span.get_span_context()
        trace_id, span_id = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
        return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"

    def fail(self, reason: str) -> None:
        """Marks it as an error; the reason is a class of errors, not a message, which may hold anything."""
        self._span.set_status(StatusCode.ERROR, reason)

    def answer(self, method: str, route: str, status: int, fields: Mapping[str, object]) -> None:
        """Ends the span of a request that was answered."""
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(_attributes(fields))
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": int(status)}
        )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.fail(HTTPStatus(status).phrase)
        self.end()

    def end(self, at: int | None = None) -> None:
        """Ends it now, or at a time in nanoseconds."""
        self._span.end(at)


class Traces:
    """The spans of a process: a context manager that sends what is left when it is closed."""

    def __init__(self, endpoint: str, process: str, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._flush_seconds = flush_seconds
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_COMPLAINTS)
        resource = Resource.create({SERVICE_NAME: f"fasterseg-{process}"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
        self._tracer = self._provider.get_tracer("fasterseg")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def request(self, traceparent: str | None) -> Span:
        """The span of a request that came with this header, to be answered; a malformed header counts as none."""
        return Span(self._tracer.start_span("request", _parent(traceparent), SpanKind.SERVER))

    @contextmanager
    def span(self, name: str, parent: str | None, fields: Mapping[str, object]) -> Iterator[Span]:
        """A span around what is done meanwhile; an error that passes marks it."""
        span = Span(self._tracer.start_span(name, _parent(parent), attributes=_attributes(fields)))
        try:
            yield span
        except Exception as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def past(
        self,
        name: str,
        parent: str | None,
        fields: Mapping[str, object],
        *,
        begun: int,
        ended: int,
        failure: str | None,
    ) -> None:
        """A span between two times in nanoseconds."""
        span = Span(self._tracer.start_span(name, _parent(parent), attributes=_attributes(fields), start_time=begun))
        if failure is not None:
            span.fail(failure)
        span.end(ended)

    def close(self) -> None:
        """Sends what is left, for `flush_seconds` at most; what ends later is not told."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()  # by itself it waits for as long as the collector lets it
        closing.join(self._flush_seconds)


class Seldom(logging.Filter):
    """Lets one line through in COMPLAINT_SECONDS: of a collector that is away the exporter tells after each attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next = clock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was silent for long enough."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + COMPLAINT_SECONDS
        return True


_COMPLAINTS = Seldom()


def _parent(traceparent: str | None) -> Context:
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _attributes(fields: Mapping[str, object]) -> dict[str, str | int | float]:
    """Fields of log lines as attributes; its trace a span names anyway."""
    return {
        f"fasterseg.{name}": value if isinstance(value, int | float) else str(value)
        for name, value in fields.items()
        if name != "trace_id"
    }
