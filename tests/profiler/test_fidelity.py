import json

import pytest

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.operator_specs import architecture_specs, space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.fidelity import Fidelity, NetworkLatency, compare, random_architectures
from services.profiler.protocol import Protocol
from services.profiler.table_builder import build_table
from tests.profiler.fake_runner import MacsRunner
from tests.profiler.test_protocol import drain
from tests.profiler.test_table_builder import CONFIG, SPACE


def a_fidelity(*pairs: tuple[float, float]) -> Fidelity:
    return Fidelity(
        tuple(
            NetworkLatency(architecture=f"{index:064}", predicted_ms=predicted, measured_ms=measured, macs=100)
            for index, (predicted, measured) in enumerate(pairs)
        )
    )


def test_a_perfect_prediction() -> None:
    fidelity = a_fidelity((1, 1), (2, 2), (4, 4))

    assert (fidelity.correlation, fidelity.kendall_tau) == (pytest.approx(1), 1)
    assert (fidelity.mape, fidelity.bias, fidelity.worst) == (0, 0, 0)


def test_a_correlation_hides_the_bias_that_is_reported_beside_it() -> None:
    fidelity = a_fidelity((2, 1), (4, 2), (8, 4))

    assert fidelity.correlation == pytest.approx(1)
    assert (fidelity.mape, fidelity.bias, fidelity.worst) == (1, 1, 1)


def test_errors_by_hand() -> None:
    fidelity = a_fidelity((1.1, 1), (1.6, 2))

    assert fidelity.mape == pytest.approx(0.15)
    assert fidelity.bias == pytest.approx(-0.05)
    assert fidelity.worst == pytest.approx(0.2)


def test_kendalls_tau_counts_pairs_in_order() -> None:
    assert a_fidelity((1, 1), (2, 3), (3, 2)).kendall_tau == pytest.approx(1 / 3)


def test_macs_are_fitted_on_the_other_networks() -> None:
    assert a_fidelity((1, 1), (1, 2)).macs_mape == pytest.approx((1 + 0.5) / 2)


def test_one_network_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="two or more"):
        a_fidelity((1, 1))


def test_random_networks_are_different_repeatable_and_in_the_space() -> None:
    space, resolution = (
        SearchSpace(num_layers=6, expansion_ratios=(2, 4), student_ratio=2),
        Resolution(height=64, width=64),
    )
    covered = set(space_specs(space, resolution, 11))

    networks = random_architectures(space, 30, seed=1)

    assert len(set(networks)) == 30
    assert networks == random_architectures(space, 30, seed=1)
    assert {len(network.branches) for network in networks} == {1, 2}
    assert all({spec for _, spec in architecture_specs(network, resolution, 11)} <= covered for network in networks)


def test_networks_are_compared_with_their_estimates() -> None:
    runner = MacsRunner()
    _, table = drain(build_table(CONFIG, runner))
    networks = random_architectures(SPACE, 3)

    _, fidelity = drain(compare(networks, table, runner, Protocol(passes=1, samples=1)))

    assert [network.architecture for network in fidelity.networks] == [network.digest for network in networks]
    assert all(network.measured_ms > 0 and network.predicted_ms > 0 for network in fidelity.networks)
    assert json.loads(json.dumps(fidelity.to_document(), allow_nan=False))["left_out"] == {}


def test_a_network_that_the_table_cannot_predict_is_left_out_by_name() -> None:
    runner = MacsRunner()
    _, table = drain(build_table(CONFIG, runner))
    covered = random_architectures(SPACE, 2)

    _, fidelity = drain(compare([*covered, TABLE_7], table, runner, Protocol(passes=1, samples=1)))

    assert len(fidelity.networks) == 2
    assert "has no entry for 'stem 3->64 64x64 /8'" in fidelity.left_out[TABLE_7.digest]
