import pytest

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.latency_table import estimate
from services.profiler.measured_networks import measure_networks
from services.profiler.protocol import Protocol
from services.profiler.random_networks import random_architectures
from services.profiler.table_builder import build_table
from tests.profiler.builders import CONFIG, SPACE, drain
from tests.profiler.fake_runner import MacsRunner


def test_networks_stand_beside_their_estimates() -> None:
    runner = MacsRunner()
    _, table = drain(build_table(CONFIG, runner))
    architectures = random_architectures(SPACE, 3)

    _, measured = drain(measure_networks(architectures, table, runner, Protocol(passes=1, samples=1)))

    assert [network.architecture for network in measured.networks] == [network.digest for network in architectures]
    for network, architecture in zip(measured.networks, architectures, strict=True):
        assert network.predicted_ms == estimate(architecture, table).milliseconds
        assert network.measured_ms == pytest.approx(network.predicted_ms)  # nothing of a network is left out
        assert network.num_executed == estimate(architecture, table).num_executed
        assert min(network.measured_ms, network.macs) > 0
    assert measured.left_out == {}


def test_networks_are_at_the_speed_at_which_the_table_was_measured() -> None:
    _, table = drain(build_table(CONFIG, MacsRunner()))
    architectures = random_architectures(SPACE, 3)

    _, then = drain(measure_networks(architectures, table, MacsRunner(), Protocol(passes=1, samples=1)))
    _, now = drain(measure_networks(architectures, table, MacsRunner(slowdown=1.1), Protocol(passes=1, samples=1)))

    for before, after in zip(then.networks, now.networks, strict=True):
        assert after.measured_ms == pytest.approx(before.measured_ms)


def test_a_network_that_the_table_cannot_predict_is_left_out_by_name() -> None:
    runner = MacsRunner()
    _, table = drain(build_table(CONFIG, runner))
    covered = random_architectures(SPACE, 2)

    _, measured = drain(measure_networks([*covered, TABLE_7], table, runner, Protocol(passes=1, samples=1)))

    assert len(measured.networks) == 2
    assert "has no entry for 'stem 3->64 64x64 /8'" in measured.left_out[TABLE_7.digest]
