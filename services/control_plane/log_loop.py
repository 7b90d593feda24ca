"""Keeps, again and again, what attempts have printed. A store that hangs holds up nothing but this."""

import logging
import threading
import time
from dataclasses import dataclass

from services.control_plane.logs import copy_logs
from services.control_plane.ray_jobs import RayJobs
from services.storage.attempt_logs import uncopied_logs
from services.storage.blob_store import BlobStore
from services.storage.database import Database, said
from services.storage.errors import DomainError
from services.telemetry.logs import attempt_fields

RETRY_SECONDS = 15.0  # until a log is asked for again that Ray or the store refused

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Refusal:
    error: str
    until: float  # of the monotonic clock


def copy_logs_until(
    stop: threading.Event, database: Database, store: BlobStore, ray: RayJobs, *, seconds: float
) -> None:
    """Copies every so many seconds until `stop` is set. Any number of replicas may.

    A round that fails is logged, once until one succeeds: the next tries again.
    """
    complaint = ""
    refusals: dict[str, _Refusal] = {}  # by attempt
    while not stop.is_set():
        try:
            refusals = _copy_once(database, store, ray, refusals)
            complaint = ""
        except Exception as error:  # noqa: BLE001  # whatever it was, the next round must come
            before, complaint = complaint, said(error)
            if complaint != before:
                _log.warning("logs were not copied", extra={"error": complaint})
        stop.wait(seconds)


def _copy_once(
    database: Database, store: BlobStore, ray: RayJobs, refusals: dict[str, _Refusal]
) -> dict[str, _Refusal]:
    """Copies what is due, but for what was refused a moment ago; returns what is refused now."""
    with database.reading() as session:
        uncopied = uncopied_logs(session)
    jobs = ray.list_jobs() if uncopied else {}
    refused: dict[str, _Refusal] = {}
    for log in uncopied:
        attempt, earlier = log.submission_id, refusals.get(log.submission_id)
        if attempt not in jobs or (log.is_over and not jobs[attempt].state.is_over):  # it will print more
            continue
        if earlier is not None and time.monotonic() < earlier.until:
            refused[attempt] = earlier
            continue
        try:
            copy_logs(database, store, ray, log)
        except (DomainError, OSError) as error:  # or a disk is full; the others must not wait for it
            refused[attempt] = _Refusal(error=str(error), until=time.monotonic() + RETRY_SECONDS)
            if earlier is None or earlier.error != str(error):
                _log.warning("log was not copied", extra={**attempt_fields(attempt), "error": str(error)})
    return refused
