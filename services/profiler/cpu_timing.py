"""Timing on a CPU: executions long enough for the clock, after one that warms up where that matters."""

import math
from collections.abc import Callable

SAMPLE_SECONDS = 5e-4  # shorter executions are repeated within a sample
CLOCK_ERROR_MS = 0.02  # of a difference of two times
WARM_SECONDS = 0.01  # longer ones lose less than a hundredth to cold caches: the quartile leaves that sample out


def sample(execute: Callable[[], None], samples: int, now: Callable[[], float]) -> list[float]:
    """Milliseconds of one execution by the clock `now` (seconds), once per sample."""
    seconds = _seconds(execute, 1, now)
    if seconds < WARM_SECONDS:
        seconds = _seconds(execute, 1, now)
    if seconds >= SAMPLE_SECONDS:  # long enough to be the first sample
        return [value * 1e3 for value in (seconds, *(_seconds(execute, 1, now) for _ in range(samples - 1)))]
    repeats = math.ceil(SAMPLE_SECONDS / max(seconds, 1e-6))
    return [_seconds(execute, repeats, now) / repeats * 1e3 for _ in range(samples)]


def _seconds(execute: Callable[[], None], repeats: int, now: Callable[[], float]) -> float:
    start = now()
    for _ in range(repeats):
        execute()
    return now() - start
