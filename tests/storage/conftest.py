"""Each test of the storage runs on SQLite and on a real PostgreSQL server, where its binaries can be found."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from services.storage.database import Database, migrate, open_database
from services.storage.tables import Table
from tests.postgresql import postgresql, postgresql_binaries


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
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: initdb and pg_ctl were not found")
    with postgresql(binaries, fsync=False) as url:
        database = open_database(url)
        migrate(database)
        database.engine.dispose()
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    yield postgresql_server
    empty(postgresql_server)


def empty(postgresql_url: str) -> None:
    """Removes every row of a migrated database."""
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(Table.metadata.tables)} RESTART IDENTITY"))
    engine.dispose()
