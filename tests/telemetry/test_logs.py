"""What log lines look like, and what they are about."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from services.telemetry.logs import JsonLines, TextLines, attempt_fields, note, request_id, start_fields


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    yield
    start_fields()


def a_record(event: str = "claimed", **fields: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": "services.dispatcher", "levelname": "INFO", "msg": event, **fields})
    record.created = 1764219662.345
    return record


def test_a_json_line_says_when_what_and_about_what() -> None:
    start_fields(request="0123456789abcdef")

    line = JsonLines({"job": "0123456789ab"}).format(a_record(kind="search", color_message="\x1b[1m", _mark=1))

    assert json.loads(line) == {
        "time": "2025-11-27T05:01:02.345Z",
        "level": "info",
        "logger": "services.dispatcher",
        "event": "claimed",
        "job": "0123456789ab",
        "request": "0123456789abcdef",
        "kind": "search",
    }


def test_a_text_line_quotes_what_would_blur_it() -> None:
    line = TextLines({}).format(a_record(error="no\nanswer", route="/jobs/{job_id}"))

    assert line == (
        '2025-11-27T05:01:02.345Z INFO services.dispatcher: claimed error="no\\nanswer" route=/jobs/{job_id}'
    )


def test_an_error_stays_one_json_line() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        record = a_record(exc_info=sys.exc_info())

    line = JsonLines({}).format(record)

    assert "\n" not in line
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_what_a_thread_notes_is_seen_by_the_request_that_sent_it() -> None:
    start_fields(request="0123456789abcdef")

    with ThreadPoolExecutor(1) as threads:
        threads.submit(copy_context().run, note, project="maps").result()

    assert json.loads(JsonLines({}).format(a_record()))["project"] == "maps"


def test_the_next_request_has_nothing_of_the_one_before() -> None:
    start_fields(request="0123456789abcdef")
    note(project="maps")

    start_fields(request="another-request")

    assert request_id() == "another-request"
    assert "project" not in json.loads(JsonLines({}).format(a_record()))


def test_an_attempts_id_names_its_job_and_epoch() -> None:
    assert attempt_fields("fasterseg-0123456789ab-12") == {"job": "0123456789ab", "attempt": 12}
    assert attempt_fields("a stranger's") == {}


def test_everything_that_a_process_says_is_a_json_object_a_line() -> None:
    program = """
import warnings
from services.telemetry.logs import LogFormat, LogLevel, start_logging
start_logging(LogFormat.JSON, LogLevel.INFO, job="0123456789ab")
warnings.warn("old")
raise SystemError("the end")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert [(line["level"], line["job"]) for line in lines] == [
        ("warning", "0123456789ab"),
        ("critical", "0123456789ab"),
    ]
    assert "SystemError: the end" in lines[-1]["exception"]


def test_a_link_that_an_answer_brings_is_in_no_line_at_the_level_that_says_most() -> None:
    program = """
import http.server, logging, threading
import httpx
from services.telemetry.logs import LogFormat, LogLevel, start_logging
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(307)
        self.send_header("Location", "http://store.test/blob?as-good-as-a-token")
        self.end_headers()
    def log_request(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
start_logging(LogFormat.TEXT, LogLevel.DEBUG)
link = httpx.get(f"http://127.0.0.1:{server.server_port}", trust_env=False).headers["Location"]
logging.getLogger("worker").debug("got a link")
httpx.get(link.replace("store.test", f"127.0.0.1:{server.server_port}"), trust_env=False)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "got a link" in ended.stderr
    assert "as-good-as-a-token" not in ended.stderr
