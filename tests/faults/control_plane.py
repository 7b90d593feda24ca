"""The control plane's process as the tests start it: its own `main`, with other periods and fail-points."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobSubmissionClient

from services.control_plane import __main__ as program
from tests.faults.fail_points import kill_at

assert JobSubmissionClient  # imported here so that no process of a test waits for it


@dataclass(frozen=True, kw_only=True)
class Periods:
    """The service's own where nothing is said. They are constants there: nobody should have to choose them."""

    lease: float = 60
    heartbeat: float = 10
    first_backoff: float = 5
    resubmit: float = 30
    exit: float = 30
    busy: float = 20  # for which SQLite waits for a lock

    def set(self) -> None:
        """Changes them in this process."""
        for module, name, value in (
            ("storage.attempts", "LEASE_SECONDS", self.lease),
            ("control_plane.dispatcher", "LEASE_SECONDS", self.lease),
            ("storage.worker_writes", "HEARTBEAT_SECONDS", self.heartbeat),
            ("storage.attempts", "FIRST_BACKOFF_SECONDS", self.first_backoff),
            ("control_plane.dispatcher", "RESUBMIT_SECONDS", self.resubmit),
            ("control_plane.dispatcher", "EXIT_SECONDS", self.exit),
            ("storage.database", "BUSY_TIMEOUT_SECONDS", self.busy),
        ):
            owner = importlib.import_module(f"services.{module}")
            assert hasattr(owner, name), f"{module} has no {name} any more"
            setattr(owner, name, value)


QUICK = Periods(lease=6, heartbeat=0.5, first_backoff=0.1, resubmit=1.5, exit=1.0)  # a tenth of the lease


def serve(environment: dict[str, str], periods: Periods, killed_at: int | None, log: Path) -> None:
    """The process, killed at a fail-point; its settings come from the environment, its output goes to a file."""
    output = log.open("a")
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    for name in [name for name in os.environ if name.startswith("FASTERSEG_")]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["services.control_plane", "serve"]  # it would read the tests' own
    periods.set()
    if killed_at is not None:
        kill_at(killed_at, log.with_suffix(".points"))
    program.main()
