"""Keeps, again and again, what attempts have printed. A store that hangs holds up nothing but this."""

import logging
import threading

from services.control_plane.logs import copy_logs
from services.control_plane.ray_jobs import RayJobs
from services.storage.attempt_logs import uncopied_logs
from services.storage.blob_store import BlobStore
from services.storage.database import Database, said
from services.storage.errors import DomainError
from services.telemetry.logs import attempt_fields

_log = logging.getLogger(__name__)


def copy_logs_until(
    stop: threading.Event, database: Database, store: BlobStore, ray: RayJobs, *, seconds: float
) -> None:
    """Copies every so many seconds until `stop` is set. Any number of replicas may.

    A round that fails is logged, once until one succeeds: the next tries again.
    """
    complaint = ""
    while not stop.is_set():
        try:
            _copy_once(database, store, ray)
            complaint = ""
        except Exception as error:  # noqa: BLE001  # whatever it was, the next round must come
            before, complaint = complaint, said(error)
            if complaint != before:
                _log.warning("logs were not copied", extra={"error": complaint})
        stop.wait(seconds)


def _copy_once(database: Database, store: BlobStore, ray: RayJobs) -> None:
    with database.reading() as session:
        uncopied = uncopied_logs(session)
    jobs = ray.list_jobs() if uncopied else {}
    for log in uncopied:
        job = jobs.get(log.submission_id)
        if job is not None and (job.state.is_over or not log.is_over):  # of what is over, everything
            try:
                copy_logs(database, store, ray, log)
            except (DomainError, OSError) as error:  # or a disk is full; the others must not wait for it
                _log.warning("log was not copied", extra={**attempt_fields(log.submission_id), "error": str(error)})
