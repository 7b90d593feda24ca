"""One measuring process per device, whoever started it: a job of another instance, or of another user.

Ray's `profiler` resource keeps a cluster's jobs apart; this lock, a file, keeps apart all that share its folder.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_use(folder: Path, address: str, wait: Callable[[], None]) -> Iterator[None]:
    """Holds the device at an address, a GPU's or "cpu"; while another process holds it, `wait` is called over and over.

    The lock ends with its process, however that ends.
    """
    descriptor = _open(folder / f"fasterseg-measures-on-{re.sub('[^0-9A-Za-z]+', '-', address)}")
    try:
        while not _is_mine(descriptor):
            wait()
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Opens it for reading, which is enough to lock: Linux refuses to create over another user's file."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)


def _is_mine(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
