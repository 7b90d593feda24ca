"""Requests that are too large, too deep or too slow are refused, in bounded memory, while others are served."""

import gzip
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serving import TOKEN, Served, control_plane

ROW = pytest.mark.row(17, "200 MB, depth 10,000, NaN, 10 MB header, gzip bomb, 900 slow sockets: 4xx, memory bounded")
MEGABYTE = 1_000_000
MOST_MEGABYTES = 100.0  # that a refused request adds to the process
MOST_MEGABYTES_PARSED = 600.0  # where it is a document of as many values as the limit lets through
SLOW_SOCKETS = 900
AS_USER = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json"
SUBMISSION = f"POST /api/v1/jobs HTTP/1.1\r\n{AS_USER}"
PIECE = b" " * MEGABYTE


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with control_plane(tmp_path_factory.mktemp("served")) as served:
        yield served


def connect(served: Served) -> socket.socket:
    url = urlsplit(served.address)
    return socket.create_connection((url.hostname, url.port), timeout=120)


def answered(served: Served, head: str, body: Iterable[bytes] = ()) -> int:
    """The status of a request on a connection of its own; what it is refused for need not have been sent whole."""
    with connect(served) as connection:
        with suppress(ConnectionError):
            connection.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            for piece in body:
                connection.sendall(piece)
        return int(connection.recv(65536).split()[1])


def posted(served: Served, body: bytes, more: str = "") -> int:
    return answered(served, f"{SUBMISSION}\r\nContent-Length: {len(body)}{more}", [body])


def a_declared_body_of_200_megabytes(served: Served) -> int:
    return answered(served, f"{SUBMISSION}\r\nContent-Length: {200 * MEGABYTE}", [PIECE] * 200)


def an_undeclared_body_of_200_megabytes(served: Served) -> int:
    chunk = b"%x\r\n%s\r\n" % (MEGABYTE, PIECE)
    return answered(served, f"{SUBMISSION}\r\nTransfer-Encoding: chunked", [chunk] * 200)


def a_blob_of_200_megabytes_by_a_user(served: Served) -> int:
    head = f"PUT /api/v1/blobs/{'a' * 64} HTTP/1.1\r\n{AS_USER}\r\nContent-Length: {200 * MEGABYTE}"
    return answered(served, head, [PIECE] * 200)


def a_header_of_10_megabytes(served: Served) -> int:
    return answered(served, f"GET /api/v1/jobs HTTP/1.1\r\n{AS_USER}\r\nX-Large: {'x' * 10 * MEGABYTE}")


def an_address_of_10_megabytes(served: Served) -> int:
    return answered(served, f"GET /api/v1/jobs?kind={'x' * 10 * MEGABYTE} HTTP/1.1\r\n{AS_USER}")


def lists_in_lists(served: Served) -> int:
    return posted(served, b"[" * 10_000 + b"]" * 10_000)


def objects_in_objects(served: Served) -> int:
    return posted(served, b'{"kind": "profile", "spec": ' + b'{"a": ' * 10_000 + b"1" + b"}" * 10_001)


def not_a_number(served: Served) -> int:
    return posted(served, b'{"kind": "profile", "spec": {"random_networks": NaN}}')


def a_number_of_8_megabytes(served: Served) -> int:
    return posted(served, b'{"kind": "profile", "priority": ' + b"9" * 8 * MEGABYTE + b"}")


def a_gzip_bomb(served: Served) -> int:
    return posted(served, gzip.compress(bytes(200 * MEGABYTE), 1), "\r\nContent-Encoding: gzip")


def as_many_values_as_the_limit_lets_through(served: Served) -> int:
    return posted(served, b'{"kind": "profile", "spec": {"a": [' + b"1," * 4 * MEGABYTE + b"1]}}")


def megabytes(served: Served, name: str) -> float:
    """What the kernel says of the process: VmRSS is what it holds, VmHWM the most that it has held."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) * 1024 / MEGABYTE


@contextmanager
def others(served: Served) -> Iterator[list[float]]:
    """The seconds that each request of somebody else takes meanwhile; fails where one is refused."""
    took, ended = list[float](), threading.Event()

    def ask() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=120) as client:
            while not (ended.is_set() and took):
                started_at = time.monotonic()
                client.get(f"{served.address}/api/v1/jobs").raise_for_status()
                took.append(time.monotonic() - started_at)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        ended.set()
        asking.join()
    assert took != []


@ROW
@pytest.mark.parametrize(
    ("sent", "most_megabytes"),
    [
        (a_header_of_10_megabytes, MOST_MEGABYTES),
        (an_address_of_10_megabytes, MOST_MEGABYTES),
        (lists_in_lists, MOST_MEGABYTES),
        (objects_in_objects, MOST_MEGABYTES),
        (not_a_number, MOST_MEGABYTES),
        (a_number_of_8_megabytes, MOST_MEGABYTES),
        *(
            pytest.param(sent, most, marks=pytest.mark.fault)
            for sent, most in (
                (a_declared_body_of_200_megabytes, MOST_MEGABYTES),
                (an_undeclared_body_of_200_megabytes, MOST_MEGABYTES),
                (a_blob_of_200_megabytes_by_a_user, MOST_MEGABYTES),
                (a_gzip_bomb, MOST_MEGABYTES),
                (as_many_values_as_the_limit_lets_through, MOST_MEGABYTES_PARSED),
            )
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_request_is_refused_in_bounded_memory_while_others_are_served(
    served: Served, sent, most_megabytes: float, record_property
):
    with others(served) as took:
        before = megabytes(served, "VmRSS:")
        Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")  # the most is counted from here on
        status = sent(served)
        added = megabytes(served, "VmHWM:") - before

    assert 400 <= status < 500
    assert added < most_megabytes
    record_property("MB added" if most_megabytes == MOST_MEGABYTES else "MB added by parsing", added)
    record_property("seconds others waited", max(took))


@ROW
@pytest.mark.fault
def test_others_are_served_while_hundreds_of_requests_do_not_end(served: Served, record_property):
    head = f"{SUBMISSION}\r\nHost: localhost\r\n"
    before = megabytes(served, "VmRSS:")
    with ExitStack() as opened:
        for number in range(SLOW_SOCKETS):
            connection = opened.enter_context(connect(served))
            connection.sendall((head if number % 2 else f"{head}Content-Length: 1000\r\n\r\n{{").encode())
        with others(served) as took:
            assert posted(served, b'{"kind": "profile", "preset": "quick"}') == 202
        added = megabytes(served, "VmRSS:") - before

    assert added < MOST_MEGABYTES
    record_property("MB added", added)
    record_property("seconds others waited", max(took))
