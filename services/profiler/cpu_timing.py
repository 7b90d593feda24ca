"""Timing on a CPU: executions long enough for the clock, after one that warms up."""

import math
from collections.abc import Callable

SAMPLE_SECONDS = 5e-4  # shorter executions are repeated within a sample
COLD = 4  # times as long a first execution may take


def sample(execute: Callable[[], None], samples: int, now: Callable[[], float]) -> list[float]:
    """Milliseconds of one execution by the clock `now` (seconds), once per sample."""
    seconds = _seconds(execute, 1, now)
    if seconds < COLD * SAMPLE_SECONDS:  # warm it may be too short for a sample
        seconds = _seconds(execute, 1, now)
    repeats = max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-6)))
    return [_seconds(execute, repeats, now) / repeats * 1e3 for _ in range(samples)]


def _seconds(execute: Callable[[], None], repeats: int, now: Callable[[], float]) -> float:
    start = now()
    for _ in range(repeats):
        execute()
    return now() - start
