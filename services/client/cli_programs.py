"""Commands that other programs carry out: the service's own, and the core's."""

import subprocess
import sys
from importlib.util import find_spec

import typer

from .cli_connection import FAILED, say

TO_ANOTHER_PROGRAM = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def run_service(command: str, arguments: list[str]) -> None:
    """Runs a command of the embedded service, and ends with its exit code."""
    _run_program("services.embedded", f"fasterseg {command}", [command, *arguments])


def run_core(group: str, command: str, arguments: list[str]) -> None:
    """Runs a command of the core, and ends with its exit code."""
    _run_program("fasterseg_core", f"fasterseg {group} {command}", [group, command, *arguments])


def _run_program(module: str, command: str, arguments: list[str]) -> None:
    """Runs a module that is not part of the client as a process of its own."""
    if find_spec(module.partition(".")[0]) is None or find_spec(module) is None:
        say(
            f"`{command}` needs the service, and only its client is installed here; "
            'install the service from a checkout of FasterSeg with `pip install -e ".[server,worker]"`'
        )
        raise typer.Exit(FAILED)
    raise typer.Exit(subprocess.run([sys.executable, "-m", module, *arguments]).returncode)
