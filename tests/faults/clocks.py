"""A clock that jumps, of processes that preload a library which changes their time of day."""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COMPILER = shutil.which("cc")
_SOURCE = Path(__file__).with_name("jumping_clock.c")


@dataclass(frozen=True)
class Clock:
    """That of every process that is started with its variables."""

    library: Path
    offset: Path  # in seconds, which the processes read whenever they look at the clock

    def variables(self) -> dict[str, str]:
        """What a process is started with."""
        return {"LD_PRELOAD": str(self.library), "JUMPING_CLOCK": str(self.offset)}

    def jump(self, hours: int) -> None:
        """Sets it so many hours before, or behind, the machine's."""
        with self.offset.open("r+b") as file:  # never shorter: it is mapped
            file.write(struct.pack("q", hours * 3600))


def a_clock(folder: Path) -> Clock:
    """One that shows the machine's time so far; needs a compiler."""
    assert COMPILER is not None
    clock = Clock(folder / "jumping_clock.so", folder / "jumping_clock.seconds")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", clock.library, _SOURCE], check=True)
    clock.offset.write_bytes(bytes(8))
    return clock


def hours_before(log: Path) -> float:
    """By how many hours the last line of a process's log is before the machine's clock."""
    lines = [line for line in log.read_text().splitlines() if " INFO " in line]
    return (datetime.fromisoformat(lines[-1].split()[0]) - datetime.now(UTC)).total_seconds() / 3600
