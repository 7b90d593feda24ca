"""The processor of this machine."""

from pathlib import Path


def cpu_name() -> str:
    """The processor's model name as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
