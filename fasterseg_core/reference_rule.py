"""The derivation of the published code, which gives Table 7 from the published parameters. It departs from sec. 3.4:

- the rows of beta are normalised again for each branch, in the order 8, 16, 32: branch 16 reads softmax(softmax(beta)),
  branch 32 one softmax more;
- the branch of 16 leaves scale 8 one layer before the place that its row of beta stands for, and never by the first or
  the last row; the branch of 32 reads its rows where they stand, but never the first of s = 16 nor the last of s = 32,
  and keeps three cells at s = 16;
- no skip stays: those that may not be shrunk away take the next best operator, as a downsampling cell does;
- a skip once refused in a cell stays refused for the branches that follow.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.config import Role
from fasterseg_core.derive import Derivation, path_through, ratio_into, with_end_ratio
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import DOWNSAMPLE_RATES, OPERATORS, Operator

FEWEST_LAYERS = 8  # fewer leave the branch of 32 no path
SKIP = OPERATORS.index(Operator.SKIP)


def derive_by_reference(relaxation: Relaxation, rates: tuple[int, ...]) -> Derivation:
    """The architecture with branches of these rates that the published code derives.

    Raises:
        ValueError: the lattice has too few layers for this rule.
    """
    space = relaxation.space
    if space.num_layers < FEWEST_LAYERS:
        raise ValueError(
            f"the reference's rule needs {FEWEST_LAYERS} layers, the lattice has {space.num_layers}: use rule 'paper'"
        )
    alpha = {int(rate): logits.detach().clone() for rate, logits in relaxation.alpha.items()}
    beta = {int(rate): logits.detach() for rate, logits in relaxation.beta.items()}
    if relaxation.role is Role.TEACHER:
        for logits in alpha.values():
            logits[:, SKIP] = -torch.inf
    branches, layers = {}, {}
    for rate in DOWNSAMPLE_RATES:  # all of them, whichever are asked for: each changes what the next one reads
        beta = {scale: torch.softmax(rows, dim=1) for scale, rows in beta.items()}
        path = path_through(_entries(beta, rate, space.num_layers), space)
        layers[rate], cells = _cells(relaxation, alpha, path)
        branches[rate] = Branch(with_end_ratio(cells, relaxation.end_ratio))
    architecture = Architecture(stem_ratio=relaxation.end_ratio, branches=tuple(branches[rate] for rate in rates))
    return Derivation(architecture, tuple(layers[rate] for rate in rates))


def _entries(beta: Mapping[int, Tensor], rate: int, num_layers: int) -> tuple[int, ...]:
    """The first layer at each rate beyond 8 of the path to a branch's rate; the first of equal ones."""
    if rate == 8:
        return ()
    if rate == 16:
        best = max(range(1, num_layers - 3), key=lambda row: float(beta[16][row, 0]))
        return (best + 1,)  # its row is that of cell (16, best + 2)
    rows = [(row_16, row_32) for row_32 in range(num_layers - 4) for row_16 in range(1, row_32 - 1)]
    row_16, row_32 = max(rows, key=lambda pair: float(beta[16][pair[0], 0] * beta[32][pair[1], 0]))
    return row_16 + 2, row_32 + 3


def _cells(
    relaxation: Relaxation, alpha: Mapping[int, Tensor], path: tuple[int, ...]
) -> tuple[tuple[int, ...], list[Cell]]:
    """The layers and the cells of a path that stay; skips that may not go are ruled out in alpha for good."""
    space, last = relaxation.space, len(path) - 1
    rows = [alpha[rate][layer - space.first_layer(rate)] for layer, rate in enumerate(path)]  # views of alpha
    gamma = {int(rate): logits.detach() for rate, logits in relaxation.gamma.items()}
    written = [*path[1:], path[-1]]
    skips = [layer for layer in range(len(path)) if written[layer] == path[layer] and int(rows[layer].argmax()) == SKIP]
    confidence = {layer: float(torch.softmax(rows[layer], dim=0)[SKIP]) for layer in skips}

    downsamplings = [layer for layer in range(last) if written[layer] != path[layer]]
    for before, after in pairwise([*downsamplings, len(path)]):
        between = range(before + 1, after)
        if between and set(between) <= set(skips):
            rows[min(reversed(between), key=confidence.__getitem__)][SKIP] = -torch.inf

    least = round(len(path) / 3) + 2 * DOWNSAMPLE_RATES.index(path[-1])
    shrunk = sorted(skips, key=confidence.__getitem__, reverse=True)[: len(path) - least]
    kept, cells = [], []
    for layer, rate in enumerate(path):
        if int(rows[layer].argmax()) == SKIP:
            if layer in shrunk:
                continue
            rows[layer][SKIP] = -torch.inf
        operator = OPERATORS[int(rows[layer].argmax())]
        ratio = ratio_into(relaxation, gamma, written[layer], layer + 1)
        kept.append(layer)
        cells.append(Cell(operator=operator, downsample_rate=rate, expansion_ratio=ratio))
    return tuple(kept), cells
