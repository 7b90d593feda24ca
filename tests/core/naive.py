"""Slow and obvious versions of what several modules compute."""

from math import prod

from torch import Tensor

from fasterseg_core.search_space import SearchSpace


def path_probability(space: SearchSpace, beta, path: tuple[int, ...]) -> Tensor | int:
    """The product of the choices of predecessor that lead to a path's last cell."""
    return prod(
        beta[rate][layer - space.first_layer(rate) - 1, 0 if path[layer - 1] < rate else 1]
        for layer, rate in enumerate(path)
        if space.has_two_inputs(rate, layer)
    )
