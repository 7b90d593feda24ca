"""What the programs that measure latency have in common: following a measurement, and saying what it was made on."""

import os
import platform
import time
from collections.abc import Generator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TypeVar

from services.profiler.protocol import MeasurementProgress
from services.profiler.runners import Runner

SHOWN_EVERY_SECONDS = 30.0

Result = TypeVar("Result")


def result_of(measuring: Generator[MeasurementProgress, None, Result], what: str) -> Result:
    """The result of measurements, with a line of progress now and then."""
    shown = time.monotonic()
    while True:
        try:
            progress = next(measuring)
        except StopIteration as end:
            result: Result = end.value
            return result
        if time.monotonic() - shown > SHOWN_EVERY_SECONDS:
            shown = time.monotonic()
            print(f"{what} {progress.done}/{progress.total}, {progress.seconds_left:.0f} s left", flush=True)


def setting_of(runner: Runner) -> dict[str, object]:
    """The day, the device and its engine, and the load."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **{key: str(value) for key, value in asdict(runner.identity).items()},
        "python": platform.python_version(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, the program's own included
    }
