"""A PostgreSQL server of our own, from the machine's binaries."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


@contextmanager
def postgresql(binaries: Path, *, fsync: bool) -> Iterator[str]:
    """The URL of an empty database on a server that listens on this machine alone and is gone afterwards."""
    switch = {"user": UNPRIVILEGED} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, socket.socket() as free:
        if switch:
            shutil.chown(folder, UNPRIVILEGED)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        options = {**switch, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        data = f"{folder}/data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8"], check=True, **options
        )
        settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync={'on' if fsync else 'off'}"
        subprocess.run([binaries / "pg_ctl", "-D", data, "-w", "start", "-o", settings], check=True, **options)
        try:
            yield f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **options)


def postgresql_binaries() -> Path | None:
    """The folder of initdb, pg_ctl and their like; None where PostgreSQL is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders = [*([Path(found).resolve().parent] if found else []), *installed]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)
