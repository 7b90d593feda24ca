"""What the comparison of the schema prints, and its exit status."""

import pytest
from sqlalchemy import text

from services.control_plane.parts import Parts
from services.control_plane.schema_check import CLEAN, DIFFERENT, NOT_COMPARED, check_schema


def test_a_schema_that_lacks_a_column_is_told_by_the_status(parts: Parts, capsys: pytest.CaptureFixture[str]):
    assert check_schema(parts.settings) == CLEAN
    assert capsys.readouterr().out == "schema and tables agree\n"

    with parts.database.writing.begin() as session:
        session.execute(text("ALTER TABLE jobs DROP COLUMN name"))

    assert check_schema(parts.settings) == DIFFERENT
    assert capsys.readouterr().out.startswith("('add_column', None, 'jobs', Column('name', String(length=100)")


def test_a_schema_of_another_version_is_not_compared(parts: Parts, capsys: pytest.CaptureFixture[str]):
    with parts.database.writing.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    assert check_schema(parts.settings) == NOT_COMPARED
    assert "the database's schema is of revision 0001" in capsys.readouterr().err
