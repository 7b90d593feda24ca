"""Migrations make exactly the tables that the code declares."""

from datetime import timedelta

from alembic import command
from sqlalchemy import Column, Integer, MetaData, inspect, text

from services.storage.artifacts import record_blob
from services.storage.attempt_logs import is_whole
from services.storage.attempts import lose_attempt
from services.storage.database import Database, database_now, migrate, migrating, schema_differences
from services.storage.documents import add_latency_table, find_latency_table
from services.storage.jobs import find_job
from services.storage.limits import used_hours
from services.storage.projects import narrow
from services.storage.tables import FIRST_PROJECT, AttemptRow, Table
from tests.storage.builders import a_job, a_latency_table_document, a_started_worker, end_backoff


def test_migrated_schema_equals_the_declared_tables(database: Database):
    assert schema_differences(database) == []


def test_a_column_that_no_migration_adds_is_found(database: Database):
    declared = MetaData()
    for table in Table.metadata.sorted_tables:
        table.to_metadata(declared)
    declared.tables["jobs"].append_column(Column("forgotten", Integer()))

    (difference,) = schema_differences(database, declared)

    assert difference.startswith("('add_column', None, 'jobs', Column('forgotten', Integer()")


def test_migrated_schema_has_every_check_constraint(database: Database):
    inspector = inspect(database.engine)

    for table in Table.metadata.tables.values():
        declared = {str(check.name) for check in table.constraints if check.__visit_name__ == "check_constraint"}
        assert {str(check["name"]) for check in inspector.get_check_constraints(table.name)} >= declared


def test_claims_are_found_by_their_order(database: Database):
    """Alembic's comparison does not see it, and SQLite loses it where it makes the table anew."""
    with database.reading() as session:
        if session.get_bind().dialect.name == "sqlite":
            found = session.execute(text("SELECT sql FROM sqlite_master WHERE name = 'ix_jobs_claim'")).scalar_one()
        else:
            found = session.execute(text("SELECT pg_get_indexdef('ix_jobs_claim'::regclass)")).scalar_one()

    assert "(state, priority DESC, number)" in found


def test_one_attempt_of_a_job_is_live_after_the_table_was_made_anew(database: Database):
    """SQLite would lose the condition of the index."""
    a_job(database)
    worker = a_started_worker(database)
    with migrating(database) as config:
        command.downgrade(config, "0004")
    migrate(database)

    with database.writing.begin() as session:
        lose_attempt(session, worker.submission_id, "killed")
        end_backoff(session)
    assert a_started_worker(database).assignment.epoch == 2


def test_migrating_again_changes_nothing(database: Database):
    migrate(database)

    with database.reading() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0010"


def test_a_log_that_was_kept_before_logs_were_copied_meanwhile_is_whole(database: Database):
    a_job(database)
    name = a_started_worker(database).submission_id
    with database.writing.begin() as session:
        lose_attempt(session, name, "killed")
        record_blob(session, 64 * "0", 1)
        attempt = session.get_one(AttemptRow, name)
        attempt.logs = 64 * "0"
        attempt.finished_at = database_now(session) - timedelta(seconds=2)
    with migrating(database) as config:
        command.downgrade(config, "0009")

    migrate(database)

    with database.reading() as session:
        assert is_whole(session.get_one(AttemptRow, name))


def test_a_database_of_versions_before_keeps_its_jobs_and_documents(database: Database):
    job = a_job(database)
    with database.writing.begin() as session:
        table = add_latency_table(session, "any", a_latency_table_document(), database_now(session))
    with migrating(database) as config:
        command.downgrade(config, "0002")
    with database.engine.connect() as connection:
        names = {column["name"] for column in inspect(connection).get_columns("jobs")}
        assert not names & {"priority", "project", "max_hours", "deadline", "created_by"}

    migrate(database)

    with database.reading() as session:
        row = find_job(session, job)
        assert (row.priority, row.paused_at, row.project, row.created_by) == (0, None, FIRST_PROJECT, None)
        assert (row.max_hours, row.deadline, used_hours(session, [job])) == (None, None, {job: 0.0})
        narrow(session, FIRST_PROJECT)
        assert find_latency_table(session, table) == a_latency_table_document()
