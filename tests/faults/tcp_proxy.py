"""A TCP proxy between the service and its store or database: what a network and a server can do to connections."""

import ctypes
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer

CHUNK_BYTES = 16 << 10
NEVER = 1 << 62
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # Linux's; of what arrives, before anything acknowledges it
KEEP_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a filter's one instruction


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to connections; the last three at this byte of all that a server has said on one."""

    refuses: bool = False  # closes those that are new
    hangs: bool = False  # lets nothing pass, and closes nothing
    drops: bool = False  # every packet: nothing is acknowledged, as where the network is gone
    bytes_per_second: float = float("inf")
    resets_at: int = NEVER
    ends_at: int = NEVER  # closes in order
    flips_at: int = NEVER


NONE = Fault()


class TcpProxy:
    """Its fault counts for whatever passes from then on."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = host, int(port)
        self._fault = NONE
        self._sockets: set[socket.socket] = set()
        self.address = ""  # host:port

    @property
    def fault(self) -> Fault:
        """What happens to connections now."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        for each in list(self._sockets):
            self.watch(each)

    def watch(self, each: socket.socket) -> None:
        """Lets the fault count for a socket, until it is closed."""
        self._sockets.add(each)
        with suppress(OSError):  # it is closed, or there is no filter to detach
            if self._fault.drops:
                keep_nothing = struct.pack("HL", 1, ctypes.addressof(KEEP_NOTHING))
                each.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, keep_nothing)
            else:
                each.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Ends all connections."""
        self.fault = NONE
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(self, client: socket.socket) -> None:
        """One connection until an end closes it, or the fault does."""
        if self.fault.refuses:
            return
        with suppress(OSError), socket.create_connection(self._target) as server:
            self.watch(client)
            self.watch(server)
            said = 0
            while True:
                for source in select.select([client, server], [], [])[0]:
                    chunk = bytearray(source.recv(CHUNK_BYTES))
                    while self.fault.hangs:
                        time.sleep(0.01)
                    fault, answers = self.fault, source is server
                    time.sleep(len(chunk) / fault.bytes_per_second)
                    if not chunk or (answers and said + len(chunk) > fault.ends_at):
                        return
                    if answers and said + len(chunk) > fault.resets_at:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()  # at once, without what waits to be sent
                        return
                    if answers and said <= fault.flips_at < said + len(chunk):
                        chunk[fault.flips_at - said] ^= 1
                    said += len(chunk) if answers else 0
                    (client if answers else server).sendall(chunk)


@contextmanager
def tcp_proxy(target: str) -> Iterator[TcpProxy]:
    """One before a host:port."""
    proxy = TcpProxy(target)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            proxy.serve(self.request)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        proxy.watch(server.socket)
        proxy.address = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield proxy
        finally:
            proxy.close()
            server.shutdown()
            thread.join()
