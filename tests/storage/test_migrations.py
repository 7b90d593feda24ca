"""Migrations make exactly the tables that the code declares."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from services.storage.database import Database, migrate
from services.storage.tables import Table


def test_migrated_schema_equals_the_declared_tables(database: Database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": Table.metadata})

        assert compare_metadata(context, Table.metadata) == []


def test_migrated_schema_has_every_check_constraint(database: Database):
    inspector = inspect(database.engine)

    for table in Table.metadata.tables.values():
        declared = {str(check.name) for check in table.constraints if check.__visit_name__ == "check_constraint"}
        assert {str(check["name"]) for check in inspector.get_check_constraints(table.name)} >= declared


def test_migrating_again_changes_nothing(database: Database):
    migrate(database)

    with database.reading() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0002"
