"""What attempts printed: Ray's while the job runs, and what was kept of it where Ray has it no more."""

import hashlib
import io

from services.control_plane.ray_jobs import RayJobs
from services.storage.artifacts import keep_blob
from services.storage.attempt_logs import UncopiedLog, is_whole, name_log
from services.storage.attempts import find_attempt
from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.errors import Gone, Unavailable
from services.storage.tables import AttemptRow

MAX_CHARACTERS = 16 << 20  # kept from the end


def read_logs(database: Database, store: BlobStore, ray: RayJobs, job_id: str, epoch: int | None) -> str:
    """What an attempt at a job, or the latest, printed so far; empty before the first.

    Raises:
        NotFound: there was no such attempt.
        Gone: Ray has lost what it printed before any of it was kept.
    """
    with database.reading() as session:
        attempt = find_attempt(session, job_id, epoch)
    if attempt is None:
        return ""
    printed = None if is_whole(attempt) else _ask_ray(ray, attempt)
    if printed:
        return printed
    if attempt.logs is not None:
        with store.open(attempt.logs) as body:
            return body.read().decode()
    if printed is None and attempt.finished_at is not None and attempt.token_hash is not None:
        raise Gone(f"Ray has lost what attempt {attempt.epoch} of job {job_id} printed, before it was copied")
    return ""


def copy_logs(database: Database, store: BlobStore, ray: RayJobs, log: UncopiedLog) -> None:
    """Keeps what an attempt has printed so far."""
    body = ray.logs(log.submission_id)[-MAX_CHARACTERS:].encode()
    sha256 = hashlib.sha256(body).hexdigest()
    if not body and log.copy is not None:
        sha256 = log.copy  # the file is gone, of which Ray says that it is empty
    if sha256 != log.copy:
        keep_blob(database, store, sha256, io.BytesIO(body))
    with database.writing.begin() as session:
        name_log(session, log, sha256)


def _ask_ray(ray: RayJobs, attempt: AttemptRow) -> str | None:
    """What Ray has of an attempt; None where it has lost it, or does not answer and something is kept."""
    try:
        return ray.logs(attempt.submission_id) if attempt.submission_id in ray.list_jobs() else None
    except Unavailable:
        if attempt.logs is None:
            raise
        return None
