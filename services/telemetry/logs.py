"""Log lines of one shape for every process: a time in UTC, a level, an event, and fields.

A line has the fields of its process, those noted of the request at hand, and what the call names in `extra`: `job`,
`attempt` (its epoch), `request` (its id), `trace_id`, `project`, and whatever else the event is about.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType

_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName", "color_message"}
_PLAIN = re.compile(r"[\w./:{}+-]+")

_noted: ContextVar[dict[str, object] | None] = ContextVar("noted", default=None)


class LogFormat(StrEnum):
    """TEXT is for people at a terminal, JSON, an object a line, for programs."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def start_logging(log_format: LogFormat, level: LogLevel, **fields: object) -> None:
    """Sends every line of this process to its standard error, Python's warnings and what ends it included."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(fields) if log_format is LogFormat.JSON else TextLines(fields))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore"):  # they log each request, and answers' headers: links to blobs
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_the_end


def start_fields(**fields: object) -> None:
    """Forgets what was noted; lines of this request have these fields from now on."""
    _noted.set(fields)


def note(**fields: object) -> None:
    """Adds fields to all further lines of this request, in whichever of its threads."""
    noted = _noted.get()
    if noted is not None:
        noted.update(fields)


def request_id() -> str | None:
    """The id of the request at hand."""
    found = (_noted.get() or {}).get("request")
    return None if found is None else str(found)


def attempt_fields(submission_id: str) -> dict[str, object]:
    """The fields of the attempt of an id, which is <instance>-<job>-<epoch>; none where it is no such id."""
    parts = re.fullmatch(r"[a-z0-9]+-([a-z0-9]{12})-([0-9]{1,9})", submission_id)
    return {} if parts is None else {"job": parts[1], "attempt": int(parts[2])}


def trace_fields(traceparent: str | None) -> dict[str, object]:
    """The field of the trace that a span belongs to; none where there is no span."""
    return {} if traceparent is None else {"trace_id": traceparent.split("-")[1]}


def noted_fields() -> dict[str, object]:
    """The fields of the request at hand."""
    return dict(_noted.get() or {})


class JsonLines(logging.Formatter):
    """A record as a JSON object; `exception` is its trace."""

    def __init__(self, fields: dict[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._fields,
            **_fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A record as a line for people, its trace below."""

    def __init__(self, fields: dict[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of the trace."""
        fields = [f"{name}={_shown(value)}" for name, value in {**self._fields, **_fields_of(record)}.items()]
        line = " ".join([_moment(record), record.levelname, f"{record.name}: {record.getMessage()}", *fields])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    said = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
    return {**(_noted.get() or {}), **said}


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _log_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger(__name__).critical("ended by an error", exc_info=(kind, error, trace))
