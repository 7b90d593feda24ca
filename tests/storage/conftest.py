"""Each test of the storage runs on SQLite and on a real PostgreSQL server, where its binaries can be found."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from services.storage.database import Database, migrate, open_database
from services.storage.tables import Table

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database."""
    database = open_database(database_url)
    yield database
    database.engine.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    database = open_database(f"sqlite:///{path}")
    migrate(database)
    database.engine.dispose()
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    shutil.copy(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a migrated database on a PostgreSQL server of our own."""
    binaries = _postgresql_binaries()
    switch = {"user": UNPRIVILEGED} if os.getuid() == 0 else {}  # PostgreSQL refuses to run as root
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
        subprocess.run(
            [binaries / "pg_ctl", "-D", data, "-w", "start", "-o", f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"],
            check=True,
            **options,
        )
        try:
            url = f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"
            database = open_database(url)
            migrate(database)
            database.engine.dispose()
            yield url
        finally:
            subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **options)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    yield postgresql_server
    engine = create_engine(postgresql_server)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(Table.metadata.tables)} RESTART IDENTITY"))
    engine.dispose()


def _postgresql_binaries() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders = [*([Path(found).parent] if found else []), *installed]
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    pytest.skip("PostgreSQL is not installed: initdb and pg_ctl were not found")
