"""Real processes that start in a tenth of a second: forked from a server that has imported what they need."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = ["tests.faults.control_plane", "tests.faults.counting_worker"]


def serve_forks() -> None:
    """Starts that server, unless it runs; libraries that its environment names are preloaded by all processes."""
    _CONTEXT.set_forkserver_preload(_MODULES)
    ensure_running()


def started(target: Callable[..., None], *args: object) -> BaseProcess:
    """A process that runs a function of a module."""
    serve_forks()
    process = _CONTEXT.Process(target=target, args=args, daemon=True)
    process.start()
    return process
