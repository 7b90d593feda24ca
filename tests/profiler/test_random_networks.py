from fasterseg_core.operator_specs import architecture_specs, space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.random_networks import random_architectures


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
