"""What the programs that measure latency have in common: the device for themselves, following, saying what on."""

import os
import platform
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from services.profiler.device_lock import sole_use
from services.profiler.protocol import MeasurementProgress
from services.profiler.runners import Runner

SHOWN_EVERY_SECONDS = 30.0
POLL_SECONDS = 0.5

Result = TypeVar("Result")


@contextmanager
def alone_on(address: str) -> Iterator[None]:
    """The device at an address, where no other of these programs and no job of a local service measures meanwhile."""

    folder = Path(os.environ.get("FASTERSEG_LOCK_DIR", gettempdir()))
    with sole_use(folder, address, lambda: time.sleep(POLL_SECONDS)):
        yield


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
