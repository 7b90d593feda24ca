"""Comparison of the rows of blobs with what the store has; it changes neither."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import SEEK_END

from sqlalchemy import select

from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.errors import CorruptBlob, NotFound
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, CheckpointRow


class FaultKind(StrEnum):
    MISSING = "missing"  # a row, and no bytes
    TRUNCATED = "truncated"  # or too long
    CORRUPT = "corrupt"  # as long as its row says, and of another digest
    UNKNOWN = "unknown"  # bytes, and no row


@dataclass(frozen=True)
class Fault:
    """What is wrong with one blob."""

    kind: FaultKind
    sha256: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256}: {self.detail}"


def find_faults(database: Database, store: BlobStore) -> Iterator[Fault]:
    """Every blob whose bytes are not those of its row, all of them read and hashed, and all bytes without a row.

    What is sent or collected meanwhile is no fault.

    Raises:
        Unavailable: the store does not answer.
    """
    with database.reading() as session:
        rows = session.execute(select(BlobRow.sha256, BlobRow.size).order_by(BlobRow.sha256)).all()
    for sha256, size in rows:
        kind = _examine(store, sha256, size)
        if kind is not None and (names := _names(database, sha256)) is not None:
            yield Fault(kind, sha256, f"{size} bytes, {names}")
    known = {row.sha256 for row in rows}
    for blob in store.blobs():
        if blob.sha256 in known or _names(database, blob.sha256) is not None:
            continue
        if store.find(blob.sha256) is not None:
            yield Fault(
                FaultKind.UNKNOWN, blob.sha256, f"{blob.size} bytes without a row, which collection will remove"
            )


def _examine(store: BlobStore, sha256: str, size: int) -> FaultKind | None:
    try:
        with store.open(sha256) as body:
            return None if body.seek(0, SEEK_END) == size else FaultKind.TRUNCATED
    except NotFound:
        return FaultKind.MISSING
    except CorruptBlob:
        found = store.find(sha256)
        return FaultKind.CORRUPT if found is not None and found.size == size else FaultKind.TRUNCATED


def _names(database: Database, sha256: str) -> str | None:
    """What names a blob, in words; None where it has no row, or no longer, or is being removed."""
    with database.reading() as session:
        blob = session.get(BlobRow, sha256)
        if blob is None or blob.going_at is not None:
            return None
        artifacts = session.execute(select(ArtifactRow.name, ArtifactRow.job).where(ArtifactRow.sha256 == sha256)).all()
        checkpoints = session.scalars(select(CheckpointRow.job).where(CheckpointRow.sha256 == sha256)).all()
        logs = session.scalars(select(AttemptRow.submission_id).where(AttemptRow.logs == sha256)).all()
    names = [
        *(f"artifact {name} of job {job}" for name, job in artifacts),
        *(f"checkpoint of job {job}" for job in checkpoints),
        *(f"log of attempt {attempt}" for attempt in logs),
    ]
    return ", ".join(names) or "which nothing names"
