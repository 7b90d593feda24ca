"""The device that a job measures on, alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fasterseg_core.config import ExportConfig, ProfileConfig
from services.client.attempt import AttemptClient
from services.client.schemas import Progress
from services.profiler.device_lock import sole_use
from services.profiler.engines import open_runner
from services.profiler.runners import Runner
from services.workers.job import Job, Stopped

POLL_SECONDS = 0.5


@contextmanager
def runner_alone(config: ProfileConfig | ExportConfig, job: Job, attempt: AttemptClient) -> Iterator[Runner]:
    """The runner that a spec asks for, on a device where no other process measures until this ends.

    Raises:
        EngineUnavailableError: the engine cannot be used here.
        Stopped: the job was cancelled or paused while another process was measuring.
    """

    def wait() -> None:
        if attempt.should_stop:
            raise Stopped
        phase = "waiting for another measurement"
        attempt.progress(Progress(phase=phase, epoch=0, epochs=0, step=0, steps=0, fraction=0.0))
        time.sleep(POLL_SECONDS)

    runner = open_runner(config.engine, config.threads, config.precision)
    with sole_use(job.lock_dir, runner.identity.address, wait):
        yield runner
