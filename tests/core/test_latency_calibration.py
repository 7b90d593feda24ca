import pytest

from fasterseg_core.latency_calibration import Calibration, prediction_error
from fasterseg_core.latency_table import estimate
from tests.builders import a_latency_table, a_search_space, an_architecture

DOCUMENT = {"slope": 1.5, "operator_ms": 0.25, "fixed_ms": 2.0, "fitted_on": ["a" * 64], "held_out": None}


def test_milliseconds_by_hand():
    calibration = Calibration(slope=1.5, operator_ms=0.25, fixed_ms=2.0, fitted_on=())

    assert calibration.milliseconds(10.0, 4) == 15 + 1 + 2


def test_a_calibration_survives_its_document():
    error = prediction_error([1.0, 2.0, 4.0], [1.0, 2.5, 4.0])
    calibration = Calibration(slope=1.1, operator_ms=0.0, fixed_ms=0.3, fitted_on=("a" * 64,), held_out=error)

    assert Calibration.from_document(calibration.to_document()) == calibration


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["slope", "operator_ms"])
def test_a_coefficient_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be finite and not negative"):
        Calibration.from_document(DOCUMENT | {name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_constant_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=f"^fixed_ms is {value}; it must be finite"):
        Calibration.from_document(DOCUMENT | {"fixed_ms": value})


@pytest.mark.parametrize("name", DOCUMENT)
def test_a_document_without_a_field_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        Calibration.from_document({key: value for key, value in DOCUMENT.items() if key != name})


def test_a_perfect_prediction():
    error = prediction_error([1, 2, 4], [1, 2, 4])

    assert (error.pearson_r, error.kendall_tau) == (pytest.approx(1), 1)
    assert (error.networks, error.mape, error.bias, error.worst) == (3, 0, 0, 0)


def test_a_correlation_hides_the_bias_that_is_reported_beside_it():
    error = prediction_error([2, 4, 8], [1, 2, 4])

    assert error.pearson_r == pytest.approx(1)
    assert (error.mape, error.bias, error.worst) == (1, 1, 1)


def test_errors_by_hand():
    error = prediction_error([1.1, 1.6], [1, 2])

    assert error.mape == pytest.approx(0.15)
    assert error.bias == pytest.approx(-0.05)
    assert error.worst == pytest.approx(0.2)


def test_kendalls_tau_counts_pairs_in_order():
    assert prediction_error([1, 2, 3], [1, 3, 2]).kendall_tau == pytest.approx(1 / 3)


def test_one_network_is_no_comparison():
    with pytest.raises(ValueError, match="two or more networks, not 1"):
        prediction_error([1], [1])


def test_sums_of_a_corrected_table_are_the_corrected_sums():
    architecture = an_architecture("conv 8 1, skip 8 1, conv 8 2")
    table = a_latency_table(a_search_space(), num_classes=3)
    calibration = Calibration(slope=1.5, operator_ms=0.25, fixed_ms=2.0, fitted_on=())
    raw = estimate(architecture, table)

    corrected = estimate(architecture, calibration.corrected(table))

    assert raw.num_executed == len(raw.operators) - 1  # the identity's
    assert corrected.milliseconds == pytest.approx(calibration.milliseconds(raw.milliseconds, raw.num_executed))
    assert calibration.corrected(table).fingerprint == table.fingerprint
