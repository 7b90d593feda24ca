"""What the programs that time requests and jobs have in common: seconds, percentiles, and saying on what machine."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles

from services.profiler.processor import cpu_name


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes on the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    return {
        "p50_ms": round(median(seconds) * 1e3, 2),
        "p99_ms": round(quantiles(seconds, n=100)[98] * 1e3, 2),
    }


def setting() -> dict[str, object]:
    """The day, the machine and its load of the last five minutes, the program's own included."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }
