"""What Linux tells of other processes."""

from pathlib import Path


def of_process(pid: int, what: str) -> bytes:
    """A file of a process below /proc, such as its `cmdline`; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def processes() -> list[int]:
    """The ids of all that run."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
