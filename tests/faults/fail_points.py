"""Places at which a control plane can be killed: before and after each commit and each call to Ray and the store.

They are put around the real methods inside a process of a test. The service itself has none.
"""

import itertools
import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from sqlalchemy.engine.default import DefaultDialect

from services.control_plane.ray_jobs import RayCluster
from services.storage.folder_store import FolderStore
from services.storage.s3_store import S3Store


def kill_at(number: int, log: Path) -> None:
    """Sends SIGKILL to this process at its nth fail-point; the names of those it came by are left in a file."""
    count = itertools.count(1)

    def point(name: str) -> None:
        current = next(count)
        with log.open("a") as file:
            file.write(f"{name}\n")
        if current == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def guarded(owner: type, method: str) -> None:
        original: Callable[..., object] = getattr(owner, method)

        @wraps(original)
        def between(*args: object, **kwargs: object) -> object:
            point(f"before {owner.__name__}.{method}")
            result = original(*args, **kwargs)
            point(f"after {owner.__name__}.{method}")
            return result

        setattr(owner, method, between)

    guarded(DefaultDialect, "do_commit")
    for method in ("submit", "stop", "logs"):  # what is only read is asked for again at every tick
        guarded(RayCluster, method)
    for store in (FolderStore, S3Store):
        for method in ("put", "open", "delete"):
            guarded(store, method)
