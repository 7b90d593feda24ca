"""What attempts printed: Ray's while the job runs, a blob afterwards, because Ray's records die with its cluster."""

import hashlib
import io

from services.control_plane.ray_jobs import RayJobs
from services.storage.artifacts import keep_blob
from services.storage.attempts import latest_attempt, lock_attempt
from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.jobs import find_job

MAX_CHARACTERS = 16 << 20  # kept from the end


def read_logs(database: Database, store: BlobStore, ray: RayJobs, job_id: str) -> str:
    """What the latest attempt at a job printed so far; empty before the first."""
    with database.reading() as session:
        attempt = latest_attempt(session, find_job(session, job_id).id)
    if attempt is None:
        return ""
    if attempt.logs is not None:
        with store.open(attempt.logs) as body:
            return body.read().decode()
    return ray.logs(attempt.submission_id) if attempt.submission_id in ray.list_jobs() else ""


def copy_logs(database: Database, store: BlobStore, ray: RayJobs, submission_id: str) -> None:
    """Keeps what an ended attempt printed."""
    body = ray.logs(submission_id)[-MAX_CHARACTERS:].encode()
    sha256 = hashlib.sha256(body).hexdigest()
    keep_blob(database, store, sha256, io.BytesIO(body))
    with database.writing.begin() as session:
        attempt, _ = lock_attempt(session, submission_id)
        attempt.logs = sha256
