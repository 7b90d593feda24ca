"""An attempt inside its Ray task: the job function of its kind, and what the control plane is told of its end."""

import logging
import traceback

import torch

from fasterseg_core.latency_table import MissingLatencyError
from fasterseg_core.reports import CollapsedError, DivergedError
from services.client.attempt import AttemptClient
from services.client.errors import LeaseLost
from services.client.schemas import FailureClass, JobKind, Reason
from services.profiler.errors import EngineUnavailableError
from services.workers.job import Job, Stopped

MESSAGE_LENGTH = 4000  # the contract's limit

_log = logging.getLogger(__name__)


def execute(job: Job, attempt: AttemptClient) -> None:
    """Runs a job and reports how it ended; once the lease is lost it ends at once and reports nothing."""
    torch.set_num_threads(job.cpus)
    try:
        _run_and_report(job, attempt)
    except LeaseLost as error:
        _log.warning("lease lost", extra={"error": str(error)})


def _run_and_report(job: Job, attempt: AttemptClient) -> None:
    try:
        run(job, attempt)
    except Stopped:
        attempt.stopped()
    except LeaseLost:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the job's owner is told
        reason = reason_for(error)
        _log.error("failed", exc_info=error, extra={"failure": reason.failure.value})
        attempt.fail(reason)


def run(job: Job, attempt: AttemptClient) -> None:
    """Runs the job function of a kind; what others need is not imported, which would take a second."""
    match job.kind:
        case JobKind.PROFILE:
            from services.workers import profile

            profile.run(job, attempt)
        case JobKind.SEARCH:
            from services.workers import search

            search.run(job, attempt)
        case JobKind.RETRAIN:
            from services.workers import retrain

            retrain.run(job, attempt)
        case JobKind.EVALUATE:
            from services.workers import evaluate

            evaluate.run(job, attempt)
        case JobKind.EXPORT:
            from services.workers import export

            export.run(job, attempt)


def reason_for(error: Exception) -> Reason:
    """Who has to act on an error; the whole traceback is in the log."""
    match error:
        case ValueError() | DivergedError() | CollapsedError() | MissingLatencyError() | EngineUnavailableError():
            message = str(error) or type(error).__name__
            return Reason(failure=FailureClass.USER_ERROR, message=message[:MESSAGE_LENGTH])
        case MemoryError() | torch.OutOfMemoryError():
            failure = FailureClass.OUT_OF_MEMORY
        case RuntimeError() if "DefaultCPUAllocator" in str(error):  # torch has no type for memory that the host lacks
            failure = FailureClass.OUT_OF_MEMORY
        case _:
            failure = FailureClass.INFRASTRUCTURE
    return Reason(failure=failure, message=traceback.format_exception_only(error)[-1].strip()[:MESSAGE_LENGTH])
