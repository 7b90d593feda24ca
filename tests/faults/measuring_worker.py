"""A worker that measures a latency table as profile jobs do, on a device whose times are written down.

It writes each operator that it times into a file of its attempt. Where the folder has a file `hang`, it waits for ever
within its second batch, with the device.
"""

from collections.abc import Mapping
from pathlib import Path

from services.client.attempt import redeem
from services.workers import measuring
from services.workers.execution import execute
from tests.faults.counting_worker import FOLDER
from tests.workers.fakes import a_job
from tests.workers.logging_runner import BATCH, LoggingRunner

HANG = "hang"


def timed(folder: Path, job: str, epoch: int) -> list[str]:
    """The keys that an attempt has timed."""
    path = folder / f"{job}-{epoch}.timed"
    return path.read_text().splitlines() if path.exists() else []


def measure(environment: Mapping[str, str]) -> None:
    """An attempt, as the driver and its task run one."""
    folder = Path(environment[FOLDER])
    url, submission_id = environment["FASTERSEG_CONTROL_PLANE_URL"], environment["FASTERSEG_SUBMISSION_ID"]
    assignment, attempt = redeem(url, submission_id, environment["FASTERSEG_TICKET"])
    log = folder / f"{assignment.job}-{assignment.epoch}.timed"
    with attempt:  # heartbeats begin before the runner exports what it knows
        runner = LoggingRunner(log, BATCH + 7 if (folder / HANG).exists() else None)
        measuring.open_runner = lambda *_: runner
        job = a_job(spec=assignment.spec, checkpoints=assignment.checkpoints, lock_dir=folder)
        execute(job, attempt)
