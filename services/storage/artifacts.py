"""Rows of blobs and of the named files that jobs made; the bytes lie in a blob store."""

from dataclasses import dataclass
from datetime import timedelta
from typing import IO

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from services.client.schemas import Artifact
from services.storage.blob_store import BlobStore
from services.storage.database import Database, database_now, insert_if_absent
from services.storage.errors import InvalidRequest, NotFound, Unavailable
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, CheckpointRow, JobRow

BINARY = "application/octet-stream"
GOING = timedelta(minutes=5)  # for which whoever removes a blob is waited for: a call to the store takes less


@dataclass(frozen=True)
class FoundBlob:
    """What the rows say of a blob; `name` is that of an artifact, which a checkpoint and a log have not."""

    size: int
    media_type: str
    name: str | None

    @property
    def disposition(self) -> str:
        """The header Content-Disposition: a file to keep, never a page to show."""
        return "attachment" if self.name is None else f'attachment; filename="{self.name}"'


def record_blob(session: Session, sha256: str, size: int) -> None:
    """Notes that the store holds a blob whole, and was sent it now; Unavailable where it is being removed."""
    now = database_now(session)
    if not insert_if_absent(session, BlobRow, sha256=sha256, size=size, created_at=now):
        there = update(BlobRow).where(BlobRow.sha256 == sha256, BlobRow.going_at.is_(None)).values(created_at=now)
        if session.scalar(there.returning(BlobRow.sha256)) is None:
            raise _is_going(sha256)


def keep_blob(database: Database, store: BlobStore, sha256: str, body: IO[bytes]) -> None:
    """Stores a body under its digest; its row follows once the store has it whole.

    The row of a blob that is there already is renewed before: collection leaves it, and its bytes, alone.

    Raises:
        InvalidRequest: the body does not hash to this digest; nothing is kept.
        Unavailable: what is there under this digest is being removed; it can be sent again.
    """
    with database.writing.begin() as session:
        now, is_it = database_now(session), BlobRow.sha256 == sha256
        session.execute(delete(BlobRow).where(is_it, BlobRow.going_at <= now - GOING))  # who removed it has died
        session.execute(update(BlobRow).where(is_it).values(created_at=now))
        if session.scalar(select(BlobRow.going_at).where(is_it)) is not None:
            raise _is_going(sha256)
    size = store.put(sha256, body)
    with database.writing.begin() as session:
        record_blob(session, sha256, size)


def _is_going(sha256: str) -> Unavailable:
    return Unavailable(f"blob {sha256} is being removed: send it again")


def find_blob(session: Session, sha256: str) -> FoundBlob:
    """A blob as a job names it; NotFound where none that the session sees does."""
    artifacts = select(ArtifactRow).join(JobRow, JobRow.id == ArtifactRow.job).where(ArtifactRow.sha256 == sha256)
    artifact = session.scalar(artifacts.limit(1))
    others = (
        select(JobRow.id).join(CheckpointRow, CheckpointRow.job == JobRow.id).where(CheckpointRow.sha256 == sha256),
        select(JobRow.id).join(AttemptRow, AttemptRow.job == JobRow.id).where(AttemptRow.logs == sha256),
    )
    if artifact is None and all(session.scalar(other.limit(1)) is None for other in others):
        raise NotFound(f"there is no artifact {sha256}")
    size = session.get_one(BlobRow, sha256).size
    if artifact is None:
        return FoundBlob(size, BINARY, None)
    return FoundBlob(size, artifact.media_type, artifact.name)


def require_blob(session: Session, sha256: str, size: int | None, field: str) -> BlobRow:
    """The row of an uploaded blob, held until the transaction ends: what is about to be named does not go.

    Raises:
        InvalidRequest: it is missing, or of another size where one is given.
    """
    there = select(BlobRow).where(BlobRow.sha256 == sha256, BlobRow.going_at.is_(None))
    blob = session.scalar(there.with_for_update(read=True, key_share=True))
    if blob is None:
        raise InvalidRequest.at(field, f"blob {sha256} was not uploaded")
    if size is not None and blob.size != size:
        raise InvalidRequest.at(field, f"blob {sha256} has {blob.size} bytes, not {size}")
    return blob


def add_artifacts(session: Session, job: str, artifacts: list[Artifact]) -> None:
    """Names the files of a job; InvalidRequest where a blob is missing or a name comes twice."""
    names = set()
    for index, artifact in enumerate(artifacts):
        if artifact.name in names:
            raise InvalidRequest.at(f"artifacts.{index}.name", f"{artifact.name!r} comes twice")
        names.add(artifact.name)
        require_blob(session, artifact.sha256, artifact.size, f"artifacts.{index}.sha256")
        session.add(ArtifactRow(job=job, name=artifact.name, sha256=artifact.sha256, media_type=artifact.media_type))
