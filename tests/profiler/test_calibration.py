import pytest

from services.profiler.calibration import fit_calibration, predicted_by_macs
from tests.profiler.builders import a_network, networks


def test_coefficients_of_networks_without_noise_are_found() -> None:
    calibration = fit_calibration(networks(1.2, 0.05, 0.7))

    assert calibration.slope == pytest.approx(1.2)
    assert calibration.operator_ms == pytest.approx(0.05)
    assert calibration.fixed_ms == pytest.approx(0.7)
    assert len(calibration.fitted_on) == 12


def test_operators_never_take_time_away_though_the_unbounded_fit_says_so() -> None:
    calibration = fit_calibration(networks(1.2, -0.05, 0.7))

    assert calibration.slope > 0
    assert calibration.operator_ms == 0


def test_what_all_networks_have_may_take_less_than_in_the_table() -> None:
    calibration = fit_calibration(networks(0.9, 0.05, -1.0))

    assert calibration.slope == pytest.approx(0.9)
    assert calibration.operator_ms == pytest.approx(0.05)
    assert calibration.fixed_ms == pytest.approx(-1.0)


def test_the_constant_takes_away_at_most_a_tenth_of_the_fastest_network() -> None:
    fitted_on = networks(1.0, 0.0, -15.0)

    fastest_ms = min(network.measured_ms for network in fitted_on)
    assert fit_calibration(fitted_on).fixed_ms == pytest.approx(-0.1 * fastest_ms)


def test_no_small_change_of_the_coefficients_fits_better() -> None:
    fitted_on = networks(1.1, 0.02, 0.3, noise=0.05)
    best = fit_calibration(fitted_on)

    def residual(slope: float, operator_ms: float, fixed_ms: float) -> float:
        return sum(
            ((slope * n.predicted_ms + operator_ms * n.num_executed + fixed_ms) / n.measured_ms - 1) ** 2
            for n in fitted_on
        )

    coefficients = (best.slope, best.operator_ms, best.fixed_ms)
    for index in range(3):
        for step in (-1e-3, 1e-3):
            moved = [value + step * (place == index) for place, value in enumerate(coefficients)]
            if min(moved[:2]) >= 0:
                assert residual(*moved) >= residual(*coefficients)


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="3 or more networks, not 2"):
        fit_calibration(networks(1, 0, 0)[:2])


def test_macs_alone_are_fitted_in_the_same_way() -> None:
    fitted_on = [a_network(1.0, 1, 2.0 * macs + 3.0, macs=macs) for macs in (10, 20, 40)]

    assert predicted_by_macs([a_network(1.0, 1, 1.0, macs=100)], fitted_on) == [pytest.approx(203.0)]
