"""One address for several control planes: a connection goes to one that accepts it, as a load balancer sends it."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler

from tests.http_handlers import handling


@dataclass
class Balancer:
    """Its own address, and those that it sends connections to."""

    url: str = ""
    ports: list[int] = field(default_factory=list)


@contextmanager
def load_balancer() -> Iterator[Balancer]:
    """One that hands connections on until it is left; those who hold one must be gone by then."""
    balancer, turns = Balancer(), itertools.count()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            first = next(turns) % len(balancer.ports)
            for port in (*balancer.ports[first:], *balancer.ports[:first]):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as upstream:
                    _join(self.request, upstream)
                    return

    with handling(Handler) as balancer.url:
        yield balancer


def _join(client: socket.socket, server: socket.socket) -> None:
    """Hands on what either sends, until one of them has ended."""
    back = threading.Thread(target=_hand_on, args=(server, client))
    back.start()
    _hand_on(client, server)
    back.join()


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
