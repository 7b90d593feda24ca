"""The client knows a table's form without the core; here both are held together."""

import json
import math
from dataclasses import fields, replace

import pytest

from fasterseg_core import latency_table as core
from fasterseg_core.operator_specs import Structure
from fasterseg_core.search_space import Operator
from services.client.latency_table import Fingerprint, LatencyTable, Row, canonical_json, merged_table, table_digest
from services.client.latency_table_faults import OPERATORS, table_faults
from services.client.schemas import JsonObject
from tests.builders import a_latency_table
from tests.client.fake_control_plane import CONV, SKIP, TABLE_DOCUMENT, a_row, a_table_document


def a_core_document() -> JsonObject:
    document: JsonObject = json.loads(json.dumps(a_latency_table().to_document()))
    return document


def test_the_client_computes_the_cores_digest() -> None:
    assert table_digest(a_core_document()) == a_latency_table().digest


def test_the_clients_fields_are_the_cores() -> None:
    assert set(Fingerprint.model_fields) == {field.name for field in fields(core.Fingerprint)}
    assert set(Row.model_fields) == {field.name for field in fields(core.LatencyRow)}


def test_the_clients_operators_are_the_cores() -> None:
    assert set(OPERATORS) == {*Operator, *Structure}


def test_a_table_of_the_core_is_read_and_has_no_faults() -> None:
    document = a_core_document()

    assert len(LatencyTable.model_validate(document).rows) == len(a_latency_table().rows)
    assert list(table_faults(document)) == []


def test_the_order_of_rows_does_not_change_the_text() -> None:
    backwards = {**TABLE_DOCUMENT, "rows": dict(reversed(TABLE_DOCUMENT["rows"].items()))}

    assert canonical_json(backwards) == canonical_json(TABLE_DOCUMENT)


def test_of_a_row_in_several_tables_the_first_measured_one_is_taken() -> None:
    quarantined = a_row(state="quarantined", reason="unstable")
    first, second, third = (
        LatencyTable.model_validate(a_table_document({CONV: row, key: a_row()}))
        for row, key in ((quarantined, SKIP), (a_row(milliseconds=2.0), SKIP), (a_row(milliseconds=3.0), SKIP))
    )

    assert merged_table([first, second, third]).rows[CONV].milliseconds == 2.0
    assert merged_table([first]).rows == first.rows


def faults_of(**row: object) -> list[str]:
    return list(table_faults(a_table_document({CONV: a_row(**row), SKIP: a_row()})))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"milliseconds": math.nan}, "they must be finite and positive"),
        ({"milliseconds": math.inf}, "they must be finite and positive"),
        ({"milliseconds": -1.0}, "they must be finite and positive"),
        ({"milliseconds": 0.0}, "they must be finite and positive"),
        ({"upper_quartile": math.nan}, "they must be finite and positive"),
        ({"lower_quartile": 1.1}, "milliseconds 1.0 do not lie between the quartiles 1.1 and 1.0"),
        ({"state": "quarantined", "reason": "unstable"}, "quarantined: unstable; measure it anew"),
        ({"samples": 0}, "samples: 0, must be positive"),
        ({"samples": "5"}, "samples: Input should be a valid integer"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_row_that_is_not_sound_is_named(row: dict[str, object], fault: str) -> None:
    (found,) = faults_of(**row)

    assert found.startswith(f"row '{CONV}': ")
    assert fault in found


@pytest.mark.parametrize("key", [SKIP, "concat 64->96 8x16 /1", "upsample 64->64 8x16 /2"])
def test_what_an_engine_may_do_nothing_for_may_take_no_time(key: str) -> None:
    free = a_row(milliseconds=0.0, lower_quartile=0.0, upper_quartile=0.0)

    assert list(table_faults(a_table_document({CONV: a_row(), key: free}))) == []


@pytest.mark.parametrize(
    "key", ["conv 64->64 8x16", "pool 64->64 8x16 /1", "conv 064->64 8x16 /1", "conv 0->64 8x16 /1"]
)
def test_a_key_that_is_not_canonical_is_named(key: str) -> None:
    (fault,) = table_faults(a_table_document({key: a_row()}))

    assert fault.startswith(f"row {key!r}: not a canonical operator key")


def test_other_parts_of_a_document_are_named() -> None:
    document = {**a_table_document(threads="1", colour="red"), "rows": {}, "title": "mine"}

    assert list(table_faults(document)) == [
        "title: unknown field",
        "fingerprint: threads: Input should be a valid integer",
        "fingerprint: colour: Extra inputs are not permitted",
        "rows: there are none",
    ]


def test_a_median_that_rounding_moved_beyond_a_quartile_is_no_fault() -> None:
    assert faults_of(milliseconds=0.1 + 0.2, lower_quartile=0.3, upper_quartile=0.3) == []


def test_a_table_of_the_core_with_a_quarantined_row_is_faulty() -> None:
    table = a_latency_table()
    spec = next(iter(table.rows))
    row = replace(table.rows[spec], state=core.RowState.QUARANTINED, reason="unstable")
    faulty = core.LatencyTable(table.fingerprint, {**table.rows, spec: row})

    (fault,) = table_faults(json.loads(json.dumps(faulty.to_document())))

    assert fault.startswith(f"row '{spec.key}': quarantined: unstable")
