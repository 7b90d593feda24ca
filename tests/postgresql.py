"""A PostgreSQL server of our own, from the machine's binaries."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


@dataclass(frozen=True)
class Server:
    """A server that listens on this machine alone, and can be killed and started again."""

    binaries: Path
    folder: Path
    port: int
    fsync: bool

    @property
    def url(self) -> str:
        """Of its database, which is empty at first."""
        return f"postgresql+psycopg2://test@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Makes its files."""
        self._run("initdb", "-D", str(self._data), "-U", "test", "-A", "trust", "-E", "UTF8")

    def start(self) -> None:
        """Starts it, also after a crash, and returns once it answers."""
        settings = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync={'on' if self.fsync else 'off'}"
        self._run("pg_ctl", "-D", str(self._data), "-w", "start", "-o", settings)

    def stop(self) -> None:
        """Ends it without a checkpoint."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Gone meanwhile by SIGKILL, started again afterwards."""
        self._kill()
        try:
            yield
        finally:
            self.start()

    def _kill(self) -> None:
        """Ends all its processes, and waits until they are gone: one that is left keeps it from starting."""
        lock = self._data / "postmaster.pid"
        postmaster = int(lock.read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # so that it makes no more of them
        _wait_for(postmaster, "T")
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait_for(pid, "ZX")
        for file in (lock, self.folder / f".s.PGSQL.{self.port}.lock"):
            file.unlink()  # a zombie that nobody has reaped yet would count as running

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **({"user": UNPRIVILEGED} if os.getuid() == 0 else {}),
        )


def _wait_for(pid: int, states: str) -> None:
    """Returns once a process is in one of these states, as /proc names them, or gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in states:
            time.sleep(0.01)


@contextmanager
def postgresql_server(binaries: Path, *, fsync: bool) -> Iterator[Server]:
    """A server that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, socket.socket() as free:
        if os.getuid() == 0:
            shutil.chown(folder, UNPRIVILEGED)
        free.bind(("127.0.0.1", 0))
        server = Server(binaries, Path(folder), free.getsockname()[1], fsync)
        free.close()
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgresql(binaries: Path, *, fsync: bool) -> Iterator[str]:
    """The URL of an empty database on a server that is gone afterwards."""
    with postgresql_server(binaries, fsync=fsync) as server:
        yield server.url


def postgresql_binaries() -> Path | None:
    """The folder of initdb, pg_ctl and their like; None where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders = [*([Path(found).resolve().parent] if found else []), *installed]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)
