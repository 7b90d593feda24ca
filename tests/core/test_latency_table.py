import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterseg_core.latency_table import Fingerprint, LatencyTable, MissingLatencyError, RowState, estimate
from fasterseg_core.operator_specs import OperatorSpec, architecture_specs
from fasterseg_core.search_space import Operator, Resolution
from tests.builders import (
    a_fingerprint,
    a_latency_row,
    a_latency_table,
    a_resolution,
    a_search_space,
    an_architecture,
    milliseconds_of,
)

CONV = OperatorSpec(operator=Operator.CONV, c_in=8, c_out=16, height=4, width=6)
SKIP = replace(CONV, operator=Operator.SKIP)


def a_small_table(**changes):
    return LatencyTable(a_fingerprint(**changes), {CONV: a_latency_row(1.5), SKIP: a_latency_row(0.25)})


def a_document():
    return json.loads(json.dumps(a_small_table().to_document()))


def test_a_document_round_trips():
    table = a_latency_table()

    again = LatencyTable.from_document(json.loads(json.dumps(table.to_document())))

    assert again == table
    assert again.digest == table.digest


def test_a_row_has_a_clock_in_its_document_only_where_it_has_one():
    clocked = LatencyTable(a_fingerprint(), {CONV: replace(a_latency_row(1.5), sm_mhz=1980)})
    document = json.loads(json.dumps(clocked.to_document()))

    assert document["rows"][CONV.key]["sm_mhz"] == 1980
    assert LatencyTable.from_document(document) == clocked
    assert "sm_mhz" not in a_document()["rows"][CONV.key]


@settings(max_examples=20)
@given(rows=st.permutations([*a_latency_table().rows.items()]))
def test_the_order_of_rows_does_not_change_the_digest(rows):
    assert LatencyTable(a_fingerprint(), dict(rows)).digest == a_latency_table().digest


def another(value):
    return replace(value, width=value.width + 1) if isinstance(value, Resolution) else value + type(value)(1)


@pytest.mark.parametrize("name", [field.name for field in fields(Fingerprint)])
def test_any_field_of_the_fingerprint_changes_both_digests(name):
    table = a_small_table()
    other = a_small_table(**{name: another(getattr(table.fingerprint, name))})

    assert other.fingerprint.digest != table.fingerprint.digest
    assert other.digest != table.digest


def test_a_row_changes_the_tables_digest_but_not_the_fingerprints():
    table = a_small_table()
    other = LatencyTable(table.fingerprint, {**table.rows, CONV: a_latency_row(1.6)})

    assert other.digest != table.digest
    assert other.fingerprint.digest == table.fingerprint.digest


def test_rows_cannot_be_changed():
    rows = {CONV: a_latency_row()}
    table = LatencyTable(a_fingerprint(), rows)
    rows.clear()

    assert table.milliseconds(CONV) == 1.0
    with pytest.raises(TypeError):
        table.rows[SKIP] = a_latency_row()


def test_a_missing_operator_is_named():
    table = a_small_table()
    absent = replace(CONV, stride=2)

    with pytest.raises(MissingLatencyError) as raised:
        table.milliseconds(absent)

    assert str(raised.value) == f"latency table {table.digest[:12]} has no entry for 'conv 8->16 4x6 /2'"


def test_a_quarantined_row_is_refused_with_its_name_and_reason():
    refused = a_latency_row(1.0, state=RowState.QUARANTINED, reason="spread of 40 %")
    table = LatencyTable(a_fingerprint(), {CONV: refused, SKIP: a_latency_row()})

    with pytest.raises(MissingLatencyError, match="quarantined its entry for 'conv 8->16 4x6 /1': spread of 40 %"):
        table.milliseconds(CONV)


def test_missing_lists_absent_and_quarantined_operators():
    refused = a_latency_row(0.0, state=RowState.QUARANTINED, reason="crashed")
    table = LatencyTable(a_fingerprint(), {CONV: refused, SKIP: a_latency_row()})
    absent = replace(CONV, stride=2)

    assert table.missing([SKIP, CONV, absent]) == [CONV, absent]


@pytest.mark.parametrize("milliseconds", [math.nan, math.inf, -0.1])
def test_a_row_that_is_no_duration_is_refused(milliseconds):
    with pytest.raises(ValueError, match="must be finite and not negative"):
        a_latency_row(milliseconds)


def test_quartiles_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"lower_quartile 2.0 is above upper_quartile 1.0"):
        a_latency_row(1.5, lower_quartile=2.0, upper_quartile=1.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"milliseconds": -1.0}, "row 'conv 8->16 4x6 /1': milliseconds -1.0"),
        ({"milliseconds": math.nan}, "row 'conv 8->16 4x6 /1': milliseconds nan"),
        ({"milliseconds": math.inf}, "row 'conv 8->16 4x6 /1': milliseconds inf"),
        ({"milliseconds": "fast"}, "row 'conv 8->16 4x6 /1': milliseconds 'fast' is not a number"),
        ({"milliseconds": None}, "row 'conv 8->16 4x6 /1': milliseconds None is not a number"),
        ({"lower_quartile": math.nan}, "row 'conv 8->16 4x6 /1': lower_quartile nan"),
        ({"lower_quartile": 2.0}, "row 'conv 8->16 4x6 /1': lower_quartile 2.0 is above upper_quartile 1.5"),
        ({"state": "quarantined", "milliseconds": math.nan}, "row 'conv 8->16 4x6 /1': milliseconds nan"),
        ({"samples": -1}, "row 'conv 8->16 4x6 /1': samples -1"),
        ({"samples": True}, "row 'conv 8->16 4x6 /1': samples True is not a number"),
        ({"reason": 3}, "row 'conv 8->16 4x6 /1': reason 3 is not a text"),
        ({"state": "guessed"}, "row 'conv 8->16 4x6 /1': 'guessed'"),
        ({"colour": "red"}, "row 'conv 8->16 4x6 /1': unknown field 'colour'"),
    ],
)
def test_a_bad_row_of_a_document_is_named(row, message):
    document = a_document()
    document["rows"][CONV.key].update(row)

    with pytest.raises(ValueError, match=message):
        LatencyTable.from_document(document)


def test_a_row_that_lacks_a_field_is_named():
    document = a_document()
    del document["rows"][CONV.key]["samples"]

    with pytest.raises(ValueError, match=r"row 'conv 8->16 4x6 /1'.*samples"):
        LatencyTable.from_document(document)


@pytest.mark.parametrize("field", ["engine", "resolution", "num_classes"])
def test_a_fingerprint_that_lacks_a_field_is_refused(field):
    document = a_document()
    del document["fingerprint"][field]

    with pytest.raises(ValueError, match=f"fingerprint: .*{field}"):
        LatencyTable.from_document(document)


def test_a_fingerprints_unknown_field_is_refused():
    document = a_document()
    document["fingerprint"]["colour"] = "red"

    with pytest.raises(ValueError, match=r"fingerprint: .*colour"):
        LatencyTable.from_document(document)


def test_a_documents_bad_key_is_named():
    document = a_document()
    document["rows"]["pool 8->8 4x4 /1"] = document["rows"][CONV.key]

    with pytest.raises(ValueError, match="'pool 8->8 4x4 /1' is not an operator key"):
        LatencyTable.from_document(document)


def test_an_estimate_is_the_sum_of_the_operators_by_part():
    architecture, table = an_architecture(), a_latency_table()
    specs = list(architecture_specs(architecture, a_resolution(), 3))

    estimated = estimate(architecture, table)

    assert estimated.milliseconds == pytest.approx(sum(milliseconds_of(spec) for _, spec in specs))
    assert list(estimated.parts) == ["stem", "cells", "aggregation", "prediction"]
    assert estimated.parts["cells"] == pytest.approx(sum(milliseconds_of(s) for part, s in specs if part == "cells"))


def test_an_estimate_needs_every_operator():
    table = a_latency_table(a_search_space(expansion_ratios=(1, 2)))

    with pytest.raises(MissingLatencyError, match="has no entry for 'zoomed_conv 8->48 8x12 /2'"):
        estimate(an_architecture(), table)
