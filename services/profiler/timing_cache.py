"""TensorRT's timing cache, kept on its machine: one problem is given one kernel, in every table and every network."""

import hashlib
import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from services.profiler.runners import RunnerIdentity


def cache_folder() -> Path:
    """The user's own folder for caches: what lies there is read by TensorRT, so nobody else may write it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fasterseg"


def read_timing_cache(folder: Path, identity: RunnerIdentity) -> bytes:
    """What earlier builds of this TensorRT on this kind of device and driver have timed; nothing at first."""
    path = _path(folder, identity)
    return path.read_bytes() if path.exists() else b""


def write_timing_cache(folder: Path, identity: RunnerIdentity, cache: bytes) -> None:
    """Replaces it whole, so that a process that reads at the same time finds the old one or the new one."""
    path = _path(folder, identity)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with NamedTemporaryFile(dir=path.parent, delete=False) as unfinished:
        unfinished.write(cache)
    Path(unfinished.name).replace(path)


def _path(folder: Path, identity: RunnerIdentity) -> Path:
    kind = "\n".join((identity.engine, identity.engine_version, identity.device, identity.driver))
    return folder / f"timing-{hashlib.sha256(kind.encode()).hexdigest()[:16]}.cache"
