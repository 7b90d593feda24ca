"""What a real Ray starts for an attempt: the service's own driver, whose Ray task counts (see counting_worker)."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from services.client.attempt_schemas import Assignment
from services.client.errors import LeaseLost
from services.workers import driver
from services.workers.settings import Settings
from tests.faults.counting_worker import FOLDER, count


def counted(assignment: Assignment, settings: Settings, devices: int, first_event: int) -> None:
    """The Ray task."""
    with suppress(LeaseLost), driver._client(assignment, settings, devices, first_event) as attempt:
        count(assignment, Path(os.environ[FOLDER]), attempt)


if __name__ == "__main__":
    driver._attempt = counted
    sys.exit(driver.drive(Settings()))
