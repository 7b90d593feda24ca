"""Latency tables are immutable and stored under their digest, on each database alike."""

import pytest
from sqlalchemy import func, select

from fasterseg_core.latency_table import LatencyTable
from services.client.schemas import JsonObject
from services.storage.database import Database
from services.storage.documents import find_latency_table, submit_latency_table
from services.storage.errors import InvalidRequest
from services.storage.projects import narrow
from services.storage.tables import FIRST_PROJECT, LatencyTableRow
from tests.storage.builders import a_latency_table, a_latency_table_document

ROW = "stem 3->32 64x128 /8"


def stored(database: Database, document: JsonObject) -> str:
    with database.writing.begin() as session:
        narrow(session, FIRST_PROJECT)
        return submit_latency_table(session, document).id


def num_stored(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(LatencyTableRow)) or 0


def a_changed_row(**changes: object) -> JsonObject:
    document = a_latency_table_document()
    row = document["rows"][ROW]
    return {**document, "rows": {**document["rows"], ROW: {**row, **changes}}}


def test_a_table_sent_twice_is_one_row_of_one_id(database: Database):
    first, second = (stored(database, a_latency_table_document()) for _ in range(2))

    assert first == second == a_latency_table().digest
    assert num_stored(database) == 1


def test_a_table_whose_rows_are_in_another_order_is_the_same(database: Database):
    document = a_latency_table_document()
    first = stored(database, document)
    second = stored(database, {**document, "rows": dict(reversed(document["rows"].items()))})

    assert (first, num_stored(database)) == (second, 1)


@pytest.mark.parametrize("milliseconds", [1e-7, 0.1 + 0.2, 1e22, 3.0])
def test_a_stored_table_still_has_its_id(database: Database, milliseconds: float):
    table = stored(database, a_changed_row(milliseconds=milliseconds))

    with database.reading() as session:
        assert LatencyTable.from_document(find_latency_table(session, table)).digest == table


def test_another_number_makes_another_table_and_leaves_the_first(database: Database):
    first = stored(database, a_latency_table_document())
    second = stored(database, a_changed_row(milliseconds=1.5))

    assert first != second
    with database.reading() as session:
        assert find_latency_table(session, first) == a_latency_table_document()


def test_a_refused_table_is_not_stored(database: Database):
    with pytest.raises(InvalidRequest, match=f"row '{ROW}': milliseconds -1.0"):
        stored(database, a_changed_row(milliseconds=-1.0))

    assert num_stored(database) == 0
