"""Migrations make exactly the tables that the code declares."""

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from services.storage.database import Database, alembic_config, migrate
from services.storage.jobs import find_job
from services.storage.tables import Table
from tests.storage.builders import a_job


def test_migrated_schema_equals_the_declared_tables(database: Database):
    with database.engine.connect() as connection:
        is_sqlite = connection.dialect.name == "sqlite"  # Alembic cannot read the order of a column in its indexes
        opts = {
            "compare_type": True,
            "target_metadata": Table.metadata,
            "include_object": lambda _, name, *__: not (is_sqlite and name == "ix_jobs_claim"),
        }
        context = MigrationContext.configure(connection, opts=opts)

        assert compare_metadata(context, Table.metadata) == []


def test_migrated_schema_has_every_check_constraint(database: Database):
    inspector = inspect(database.engine)

    for table in Table.metadata.tables.values():
        declared = {str(check.name) for check in table.constraints if check.__visit_name__ == "check_constraint"}
        assert {str(check["name"]) for check in inspector.get_check_constraints(table.name)} >= declared


def test_migrating_again_changes_nothing(database: Database):
    migrate(database)

    with database.reading() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0003"


def test_a_database_of_the_version_before_keeps_its_jobs(database: Database):
    job = a_job(database)
    with database.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0002")
    with database.engine.connect() as connection:
        assert "priority" not in {column["name"] for column in inspect(connection).get_columns("jobs")}

    migrate(database)

    with database.reading() as session:
        row = find_job(session, job)
        assert (row.priority, row.paused_at) == (0, None)
