"""alpha, beta and gamma of one architecture, their normalisation (eq. 7), and the widths of one pass (appendix C).

beta_s,l column 0 is the predecessor at s/2, column 1 the one at s. gamma_s,l belongs to the connection into cell (s, l)
from both predecessors; what enters the first layer and leaves the last one has the stem's and the head's width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.search_space import DOWNSAMPLE_RATES, OPERATORS, SearchSpace
from fasterseg_core.superkernel import PaddedWidth

INITIAL_LOGIT = 1e-3  # reference


@dataclass(frozen=True)
class Probabilities:
    """Normalised scalars, each a map from the rate s to one row per layer (eq. 7).

    alpha (cells at s, 5); beta (cells at s with two inputs, 2), s in {16, 32}; gamma (connections into s, ratios).
    """

    alpha: Mapping[int, Tensor]
    beta: Mapping[int, Tensor]
    gamma: Mapping[int, Tensor]

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """Those of alpha at 8, 16, 32 and of beta at 16, 32: all that a pass at given widths reads."""
        return (*self.alpha.values(), *self.beta.values())

    @staticmethod
    def of_rows(rows: Sequence[Tensor]) -> "Probabilities":
        """Those whose `rows` these are, without gamma."""
        at_8, at_16, at_32, into_16, into_32 = rows
        return Probabilities(alpha={8: at_8, 16: at_16, 32: at_32}, beta={16: into_16, 32: into_32}, gamma={})


class Relaxation(nn.Module):
    """The searched scalars of the teacher or the student; the teacher's only ratio is the widest (sec. 3.3)."""

    def __init__(self, space: SearchSpace, role: Role) -> None:
        super().__init__()
        self.space = space
        self.role = role
        self.ratios = space.expansion_ratios if role is Role.STUDENT else (space.teacher_ratio,)
        self.end_ratio = space.student_ratio if role is Role.STUDENT else space.teacher_ratio
        self.alpha = nn.ParameterDict()
        self.beta = nn.ParameterDict()
        self.gamma = nn.ParameterDict()
        for rate in DOWNSAMPLE_RATES:
            num_cells = space.num_layers - space.first_layer(rate)
            self.alpha[str(rate)] = _logits(num_cells, len(OPERATORS))
            if rate > DOWNSAMPLE_RATES[0]:
                self.beta[str(rate)] = _logits(num_cells - 1, 2)
            self.gamma[str(rate)] = _logits(space.num_layers - first_connection(space, rate), len(self.ratios))

    def probabilities(self) -> Probabilities:
        """The softmax of every row (eq. 7)."""
        return Probabilities(_softmax(self.alpha), _softmax(self.beta), _softmax(self.gamma))


@dataclass(frozen=True)
class Width:
    """The ratio of one connection in one pass, and the factor 1 that carries its gradient to gamma, if any.

    Where the pass must not depend on the ratio, `padded` stands for it.
    """

    ratio: int
    score: Tensor | None = None
    padded: PaddedWidth | None = None


@dataclass(frozen=True)
class Widths:
    """The width of every connection in one pass: (s, l) -> the connection into cell (s, l); and of both ends."""

    connections: Mapping[tuple[int, int], Width]
    end_ratio: int

    def into(self, rate: int, layer: int) -> Width:
        """The width of what enters cell (rate, layer); layer L is the head."""
        return self.connections.get((rate, layer), Width(self.end_ratio))


def first_connection(space: SearchSpace, rate: int) -> int:
    """The first layer that a searched connection enters at this rate: the stem feeds layer 0."""
    return max(1, space.first_layer(rate))


def connections(space: SearchSpace) -> list[tuple[int, int]]:
    """Every connection of searched width, as the cell (s, l) that it enters."""
    return [(rate, layer) for rate, layer in space.cells() if layer >= first_connection(space, rate)]


def fixed_widths(space: SearchSpace, ratio: int, end_ratio: int) -> Widths:
    """One ratio everywhere: the smallest or the widest (appendix F)."""
    return Widths({connection: Width(ratio) for connection in connections(space)}, end_ratio)


def most_probable_widths(relaxation: Relaxation) -> Widths:
    """The argmax of gamma at every connection, without a gradient: the widths of an evaluation."""
    chosen = {}
    for name, logits in relaxation.gamma.items():
        first = first_connection(relaxation.space, int(name))
        for row, index in enumerate(logits.argmax(dim=1).tolist()):
            chosen[int(name), first + row] = Width(relaxation.ratios[index])
    return Widths(chosen, relaxation.end_ratio)


def random_widths(space: SearchSpace, end_ratio: int, generator: torch.Generator) -> Widths:
    """A ratio drawn uniformly for each connection (appendix F, pretraining)."""
    ratios, places = space.expansion_ratios, connections(space)
    draws = torch.randint(len(ratios), (len(places),), generator=generator).tolist()
    return Widths({place: Width(ratios[i]) for place, i in zip(places, draws, strict=True)}, end_ratio)


def sampled_widths(relaxation: Relaxation, temperature: float, generator: torch.Generator) -> Widths:
    """Ratios sampled from gamma by straight-through Gumbel-Softmax (appendix C).

    The printed noise -log(log(-u)) is a misprint of -log(-log(u)).
    """
    chosen = {}
    for name, logits in relaxation.gamma.items():  # the logarithms of gamma up to a constant, which softmax ignores
        rate = int(name)
        first = first_connection(relaxation.space, rate)
        uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp_min(1e-12)
        noise = -torch.log(-torch.log(uniform)).to(logits)
        soft = torch.softmax((logits + noise) / temperature, dim=1)
        indices = soft.argmax(dim=1).tolist()
        for row, index in enumerate(indices):
            score = soft[row, index]
            chosen[rate, first + row] = Width(relaxation.ratios[index], 1 + (score - score.detach()))
    return Widths(chosen, relaxation.end_ratio)


def crossings(space: SearchSpace, beta: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Where the path into the last cell at s was downsampled, as probabilities over layers.

    16: (L,), entry l for cell (8, l) writing to (16, l + 1). 32: (L, L), entry [l1, l2] for 8 -> 16 after l1 and
    16 -> 32 after l2. Both sum to 1.
    """
    num_layers = space.num_layers
    to_16 = _entries(space, beta, 16)  # [l, m]: a path in cell (16, m) entered scale 16 after layer l
    to_32 = _entries(space, beta, 32)[:, num_layers - 1]
    # Column l2 of to_16 is the entry into scale 16 of what cell (16, l2) reads.
    return {16: to_16[:, num_layers - 1], 32: to_16 * to_32}


def _entries(space: SearchSpace, beta: Mapping[int, Tensor], rate: int) -> Tensor:
    """(L, L), entry [l, m]: the probability that a path in cell (rate, m) entered the rate after layer l."""
    rows, num_layers, first = beta[rate], space.num_layers, space.first_layer(rate)
    zero, one = rows.new_zeros(num_layers), torch.eye(num_layers, dtype=rows.dtype, device=rows.device)
    columns = [zero] * first + [one[first - 1]]  # a scale's first cell has one input
    for layer in range(first + 1, num_layers):
        down, keep = rows[layer - first - 1]
        columns.append(down * one[layer - 1] + keep * columns[-1])
    return torch.stack(columns, dim=1)


def _logits(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.full((rows, columns), INITIAL_LOGIT))


def _softmax(logits: nn.ParameterDict) -> dict[int, Tensor]:
    return {int(rate): torch.softmax(rows, dim=1) for rate, rows in logits.items()}
