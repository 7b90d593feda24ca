"""The database's clock, its transactions and what it refuses."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.client.schemas import JobKind
from services.storage.database import Database, database_now, insert_if_absent, open_database
from services.storage.jobs import find_job
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, JobRow
from tests.storage.builders import a_job, a_started_worker


def libpq_settings(database: Database) -> dict[str, str]:
    """Those of a connection to PostgreSQL."""
    with database.engine.connect() as connection:
        settings: dict[str, str] = connection.connection.dbapi_connection.info.dsn_parameters
    return settings


def test_database_clock_is_aware_and_advances(database: Database):
    with database.reading() as session:
        first, second = database_now(session), database_now(session)

    assert first.tzinfo is UTC
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)
    assert second >= first


def test_times_survive_storage(database: Database):
    job = a_job(database)

    with database.reading() as session:
        assert find_job(session, job).created_at.tzinfo is UTC


def test_insert_if_absent_inserts_once(database: Database):
    with database.writing.begin() as session:
        now = database_now(session)
        first = insert_if_absent(session, BlobRow, sha256="a" * 64, size=1, created_at=now)
        second = insert_if_absent(session, BlobRow, sha256="a" * 64, size=2, created_at=now)

    assert (first, second) == (True, False)


def test_not_a_number_is_stored_as_null(database: Database):
    job = a_job(database, spec={})

    with database.writing.begin() as session:
        find_job(session, job).result = {"loss": float("nan")}
    with database.reading() as session:
        assert find_job(session, job).result == {"loss": None}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlite_keeps_a_write_ahead_log(database: Database):
    with database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_postgresql_compiles_no_query(database: Database):
    with database.reading() as session:
        assert session.execute(text("SHOW jit")).scalar_one() == "off"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_both_ends_give_up_a_silent_connection_to_postgresql(database: Database):
    with database.reading() as session:
        of_server = [
            session.execute(text(f"SHOW tcp_{name}")).scalar_one()
            for name in ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
        ]

    assert of_server == ["5", "5", "2", "15000"]
    expected = {
        "connect_timeout": "10",
        "keepalives_idle": "5",
        "keepalives_interval": "5",
        "keepalives_count": "2",
        "tcp_user_timeout": "15000",
    }
    assert libpq_settings(database).items() >= expected.items()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_the_url_says_of_a_connection_counts(database_url: str):
    database = open_database(f"{database_url}?connect_timeout=3")

    assert libpq_settings(database)["connect_timeout"] == "3"
    database.engine.dispose()


def test_a_row_of_an_unknown_job_is_refused(database: Database):
    with pytest.raises(IntegrityError), database.writing.begin() as session:
        session.add(ArtifactRow(job="nobody", name="a", sha256="b" * 64, media_type="text/plain"))


def test_a_job_cannot_have_two_live_attempts(database: Database):
    a_job(database)
    worker = a_started_worker(database)

    with database.writing() as session:
        now = database_now(session)
        job = worker.assignment.job
        times = {"lease_until": now, "created_at": now, "submitted_at": now}
        session.add(AttemptRow(submission_id="second", job=job, epoch=2, ticket_hash="", **times))
        with pytest.raises(IntegrityError):
            session.flush()


@pytest.mark.parametrize(
    "change",
    [
        "state = 'done'",
        "kind = 'dream'",
        "state = 'succeeded'",  # without an end
        "state = 'failed', finished_at = created_at",  # without a reason
        "reason = '{}'",  # without having failed
        "state = 'running'",  # without an attempt
    ],
)
def test_a_job_that_contradicts_itself_is_refused(database: Database, change: str):
    a_job(database, JobKind.PROFILE)

    with pytest.raises(IntegrityError), database.writing.begin() as session:
        session.execute(text(f"UPDATE {JobRow.__tablename__} SET {change}"))
