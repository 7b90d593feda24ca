"""Random networks of a search space, measured whole to see and to correct what a latency table predicts."""

import random
from functools import partial

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.search_space import BRANCH_PAIRS, DOWNSAMPLE_RATES, OPERATORS, Resolution, SearchSpace
from services.profiler.runners import Workload, random_workload

TRIES = 100  # for each random network that is wanted


def network_workload(architecture: Architecture, resolution: Resolution, num_classes: int) -> Workload:
    """A whole network at one resolution, batch 1."""
    shapes = ((1, 3, resolution.height, resolution.width),)
    return random_workload(partial(SegmentationNetwork, architecture, num_classes), shapes)


def random_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    """Different networks of the space, uniform over branches, paths, operators, ratios, and the two stems and heads.

    Raises:
        ValueError: the space seems to hold fewer.
    """
    generator = random.Random(seed)
    branches = [*((rate,) for rate in DOWNSAMPLE_RATES), *BRANCH_PAIRS]
    found: dict[Architecture, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            return list(found)
        ratio = generator.choice((space.student_ratio, space.teacher_ratio))
        chosen = (_random_branch(space, rate, ratio, generator) for rate in generator.choice(branches))
        found[Architecture(stem_ratio=ratio, branches=tuple(chosen))] = None
    raise ValueError(f"random_networks: {count} different networks were not found in this space; use fewer")


def _random_branch(space: SearchSpace, rate: int, head_ratio: int, generator: random.Random) -> Branch:
    path = generator.choice(list(space.paths(rate)))
    return Branch(
        tuple(
            Cell(
                operator=generator.choice(OPERATORS),
                downsample_rate=cell_rate,
                expansion_ratio=generator.choice(space.expansion_ratios) if layer < len(path) - 1 else head_ratio,
            )
            for layer, cell_rate in enumerate(path)
        )
    )
