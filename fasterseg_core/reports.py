"""What long work yields: a report of each step and of each epoch. The caller shows, checkpoints and cancels."""

from dataclasses import dataclass


class DivergedError(ArithmeticError):
    """A loss or a gradient is not finite; the message names phase, epoch and step. The step was not applied."""


class CollapsedError(ArithmeticError):
    """The student became trivial (sec. 3.2) under a policy that stops then; the message names the signs and the fix."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One optimisation step; epoch and step count from 1, fraction is of the whole run."""

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float
    loss: float
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch: mean losses, and the score on the hold-out where it was measured.

    In a search, latency_ms and miou are those of the student derived at this epoch, and relaxed_latency_ms is the
    supernet's (sec. 3.2). What a search epoch reports besides:

    latency_weight: lambda (eq. 8) of the epoch; with a latency target, the mean multiplier of its steps.
    head_mious: of the supernet's student at its most probable widths, by head ("8", "16", "32", "8+16"...).
    alpha_entropy ... miou_slope: the signs of a collapse (`collapse.py`); warning: what they say, if anything.
    relaxation: the student's probabilities by name ("alpha.8", "beta.16", "gamma.32"), rows are layers.
    """

    phase: str
    epoch: int
    loss: float
    architecture_loss: float | None = None
    relaxed_latency_ms: float | None = None
    latency_ms: float | None = None
    miou: float | None = None
    latency_weight: float | None = None
    head_mious: dict[str, float] | None = None
    alpha_entropy: float | None = None
    skip_share: float | None = None
    narrowest_share: float | None = None
    latency_slope: float | None = None
    miou_slope: float | None = None
    warning: str | None = None
    relaxation: dict[str, list[list[float]]] | None = None


Report = StepReport | EpochReport
