"""What long work yields: a report of each step and of each epoch. The caller shows, checkpoints and cancels."""

from dataclasses import dataclass


class DivergedError(ArithmeticError):
    """A loss or a gradient is not finite; the message names phase, epoch and step. The step was not applied."""


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
    supernet's (sec. 3.2).
    """

    phase: str
    epoch: int
    loss: float
    architecture_loss: float | None = None
    relaxed_latency_ms: float | None = None
    latency_ms: float | None = None
    miou: float | None = None


Report = StepReport | EpochReport
