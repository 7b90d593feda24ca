"""The control plane as a process of its own, as it is started in earnest, with Ray and the profiler away."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "the token of the one who set the service up"
PROFILER_TOKEN = "what the profiler and it share"
COMMAND = [sys.executable, "-m", "services.control_plane"]
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


@dataclass(frozen=True)
class Served:
    """A process that has begun to answer."""

    process: subprocess.Popen[str]
    address: str
    log: Path  # what it prints


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Of a control plane whose state is in this folder; variables named without FASTERSEG_ change its settings."""
    settings = {
        "STATE_FOLDER": str(folder),
        "FIRST_TOKEN_PATH": str(folder / "api.token"),
        "PROFILER_TOKEN": PROFILER_TOKEN,
        "PORT": "0",
        "RAY_ADDRESS": NOWHERE,
        "PROFILER_URL": NOWHERE,
        **variables,
    }
    return {**os.environ, **{f"FASTERSEG_{name}": value for name, value in settings.items()}}


@contextmanager
def control_plane(folder: Path, **variables: str) -> Iterator[Served]:
    """A control plane in this environment."""
    (folder / "api.token").write_text(TOKEN + "\n")
    settings = environment(folder, **variables)
    log = folder / "control_plane.log"
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(COMMAND, env=settings, stdout=file, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        address = ""
        for line in process.stderr:
            file.write(line)
            if found := re.search(r"running on (http://\S+)", line):
                address = found[1]
                break
        rest = threading.Thread(target=file.writelines, args=(process.stderr,))
        rest.start()
        try:
            yield Served(process, address, log)
        finally:
            process.kill()
            rest.join()
