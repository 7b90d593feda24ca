"""Architecture collapse (sec. 3.2): the signs of a student that becomes trivial, which is the easiest way to be fast.

Judged are the mean shares of skips in alpha and of the narrowest widths in gamma: how far each has come from a uniform
choice, 0, to a certain one, 1. They move smoothly from the first step on. The derived student's own shares are decided
by a hair: 73 % of the published search's argmaxes are the narrowest width, though that has 24 % of gamma, 20 % being
uniform. Slopes of latency and mIoU are reported beside them and decide nothing: over a few epochs and hold-out images
both fall in healthy searches too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import OPERATORS, Operator

COLLAPSED = 0.5  # of the way from a uniform choice to a certain one
EPOCHS_OF_SLOPES = 4  # the last ones


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What a student's scalars and its last epochs say of a collapse.

    alpha_entropy is the mean over cells as a share of log 5; slopes are per epoch, in ms and in mIoU, None at first.
    """

    alpha_entropy: float
    skip_share: float
    narrowest_share: float
    latency_slope: float | None
    miou_slope: float | None


def signs_of_collapse(relaxation: Relaxation, latencies_ms: Sequence[float], mious: Sequence[float]) -> Signs:
    """The signs at the end of an epoch, whose derived student's latency and mIoU are the last of those given."""
    with torch.no_grad():
        probabilities = relaxation.probabilities()
    alpha, gamma = _rows(probabilities.alpha), _rows(probabilities.gamma)
    return Signs(
        alpha_entropy=float(torch.special.entr(alpha).sum(dim=1).mean()) / math.log(len(OPERATORS)),
        skip_share=float(alpha[:, OPERATORS.index(Operator.SKIP)].mean()),
        narrowest_share=float(gamma[:, 0].mean()),
        latency_slope=slope(latencies_ms[-EPOCHS_OF_SLOPES:]),
        miou_slope=slope(mious[-EPOCHS_OF_SLOPES:]),
    )


def warning(signs: Signs, num_ratios: int) -> str | None:
    """What is wrong and what to do about it, None where nothing is."""
    found = [
        f"{what} at {share:.0%} ({1 / choices:.0%} in a uniform choice)"
        for what, share, choices in (
            ("skips", signs.skip_share, len(OPERATORS)),
            ("narrowest widths", signs.narrowest_share, num_ratios),
        )
        if choices > 1 and (share - 1 / choices) / (1 - 1 / choices) >= COLLAPSED
    ]
    if not found:
        return None
    trends = [f"alpha's entropy {signs.alpha_entropy:.0%} of a uniform choice's"]
    if signs.latency_slope is not None and signs.miou_slope is not None:
        trends.append(f"latency {signs.latency_slope:+.2f} ms and mIoU {100 * signs.miou_slope:+.1f} points an epoch")
    return (
        f"the student is collapsing to a trivial network: {', '.join(found)}; {', '.join(trends)}. "
        "Lower latency_weight (or raise target_latency_ms), and leave granularity_weights null to balance them"
    )


def slope(values: Sequence[float]) -> float | None:
    """The least-squares slope per step of equally spaced values, None where there are fewer than two."""
    if len(values) < 2:
        return None
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    covariance = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return covariance / sum((i - middle) ** 2 for i in range(len(values)))


def _rows(by_rate: Mapping[int, Tensor]) -> Tensor:
    return torch.cat(list(by_rate.values()))
