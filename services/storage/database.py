"""The database, SQLite on one machine or PostgreSQL. Whoever opens a session commits it; functions never do."""

import secrets
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic_core import to_json
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from services.storage.errors import Unavailable
from services.storage.tables import Table, UtcDateTime

BUSY_TIMEOUT_SECONDS = 20
CONNECTIONS = 48  # opened as needed; FastAPI runs 40 requests at a time, dispatcher and collection need one each

_MIGRATIONS = Path(__file__).parent / "migrations"
_NOW = {
    "postgresql": text("SELECT clock_timestamp() AS now").columns(now=UtcDateTime()),
    # %f gives milliseconds, SQLAlchemy reads microseconds
    "sqlite": text("SELECT strftime('%Y-%m-%d %H\\:%M\\:%f000', 'now') AS now").columns(now=UtcDateTime()),
}


@dataclass(frozen=True)
class Database:
    """`with database.writing.begin() as session` for changes, `with database.reading() as session` for the rest."""

    engine: Engine
    reading: sessionmaker[Session]
    writing: sessionmaker[Session]


def open_database(url: str) -> Database:
    """The database of an SQLAlchemy URL; a folder for a SQLite file is made. No connection is opened yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None, "an in-memory database would be lost"
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, json_serializer=_to_json, pool_size=CONNECTIONS, max_overflow=0)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, json_serializer=_to_json, pool_size=CONNECTIONS, max_overflow=0, pool_pre_ping=True)
    reading = engine.execution_options(read_only=True)
    return Database(engine=engine, reading=sessionmaker(reading), writing=sessionmaker(engine))


def migrate(database: Database) -> None:
    """Brings the schema to the newest revision."""
    with migrating(database) as config:
        command.upgrade(config, "head")


def require_migrated(database: Database) -> None:
    """Unavailable unless the schema is of the newest revision; nothing is changed."""
    newest = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    with database.engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != newest:
        raise Unavailable(
            f"the database's schema is of revision {found}, and this version needs {newest}: "
            "start the control plane of this version, which migrates it"
        )


@contextmanager
def migrating(database: Database) -> Iterator[Config]:
    """What Alembic's commands need to work on the database, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with database.engine.connect() as connection, _foreign_keys_unchecked(connection), connection.begin():
        config.attributes["connection"] = connection
        yield config
        if connection.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            assert broken is None, f"a row would refer to nothing: {broken}"


@contextmanager
def _foreign_keys_unchecked(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew, and the old one, which others refer to, is dropped."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys = OFF")  # outside of a transaction, where alone it counts
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def database_now(session: Session) -> datetime:
    """The database's clock, the one that leases are measured by."""
    now: datetime = session.execute(_NOW[session.get_bind().dialect.name]).scalar_one()
    return now


def new_id() -> str:
    """An id that nobody guesses and that fits a command line: 12 digits and small letters."""
    return "".join(secrets.choice(string.digits + string.ascii_lowercase) for _ in range(12))


def insert_if_absent(session: Session, table: type[Table], **values: object) -> bool:
    """Inserts a row unless one with the same unique values exists; whether it did."""
    if session.get_bind().dialect.name == "sqlite":
        statement = sqlite.insert(table).values(**values).on_conflict_do_nothing()
        return session.execute(statement.returning(*table.__table__.primary_key)).first() is not None
    rows = postgresql.insert(table).values(**values).on_conflict_do_nothing().returning(*table.__table__.primary_key)
    return session.execute(rows).first() is not None


def _to_json(value: object) -> str:
    return to_json(value, inf_nan_mode="null").decode()  # JSON has no NaN, and PostgreSQL refuses it


def _configure_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver opens no transaction of its own: _begin_sqlite does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes would fail where another wrote in between: take the lock at once.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
