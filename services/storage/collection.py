"""Collection of blobs that no row names: checkpoints that others have replaced, files that were never named.

Bytes without any row, because the process died in between, are given one (`adopt`) and are then such a blob.
A blob may be sent long before a row names it, and sent again while it is collected. So a young one is left alone, and
its row is held while its bytes go: whoever sends it meanwhile waits for that, and then stores it anew (`keep_blob`).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import Session

from services.storage.artifacts import record_blob
from services.storage.blob_store import BlobStore, StoredBlob
from services.storage.database import Database, database_now
from services.storage.errors import DomainError
from services.storage.tables import ArtifactRow, AttemptRow, BlobRow, CheckpointRow

_BLOBS_AT_A_TIME = 500  # that are looked up

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """What was removed, and what the store would not remove."""

    blobs: int
    size: int  # bytes
    refused: int


def collect(database: Database, store: BlobStore, min_age: timedelta) -> Collected:
    """Removes every blob that no row names and that was sent longer ago than `min_age`, each in its own transaction.

    After a crash in between a row may stand for bytes that are gone; nothing names it, and the next pass removes it.
    """
    with database.reading() as session:
        until = database_now(session) - min_age
        old = select(BlobRow.sha256).where(BlobRow.created_at <= until, _is_unnamed())
        candidates = session.scalars(old).all()
    sizes: list[int] = []
    refused = 0
    for sha256 in candidates:
        try:
            size = _collect_one(database, store, sha256, until)
        except (DomainError, OSError) as error:  # the others must not wait for it
            _log.warning("blob was not removed", extra={"sha256": sha256, "error": str(error)})
            refused += 1
        else:
            if size is not None:
                sizes.append(size)
    return Collected(len(sizes), sum(sizes), refused)


def adopt(database: Database, store: BlobStore) -> int:
    """Writes a row, of a blob that was sent now, for whatever the store has and no row does; returns how many.

    The age that counts begins anew: whoever sends such a blob at this moment has long written its row when it is old.
    """
    adopted = 0
    for blobs in _batches(store.blobs()):
        with database.reading() as session:
            sent = select(BlobRow.sha256).where(BlobRow.sha256.in_(blob.sha256 for blob in blobs))
            known = set(session.scalars(sent))
        adopted += sum(_adopt_one(database, store, blob) for blob in blobs if blob.sha256 not in known)
    return adopted


def abandon(database: Database, store: BlobStore, min_age: timedelta) -> int:
    """Removes what writers that began longer ago than `min_age` and never ended left; returns how many they were."""
    with database.reading() as session:
        until = database_now(session) - min_age
    return store.abandon(until)


def unnamed_bytes(session: Session) -> int:
    """The size of all blobs that no row names, whatever their age."""
    return session.scalar(select(func.sum(BlobRow.size)).where(_is_unnamed())) or 0


def _collect_one(database: Database, store: BlobStore, sha256: str, until: datetime) -> int | None:
    with database.writing.begin() as session:
        still = select(BlobRow).where(BlobRow.sha256 == sha256, BlobRow.created_at <= until, _is_unnamed())
        row = session.scalar(still.with_for_update(skip_locked=True))
        if row is None:
            return None
        size = row.size
        session.delete(row)
        session.flush()  # fails where a row names it after all: then its bytes stay
        store.delete(sha256)
        return size


def _adopt_one(database: Database, store: BlobStore, blob: StoredBlob) -> bool:
    with database.writing.begin() as session:
        if not record_blob(session, blob.sha256, blob.size):
            return False  # its writer was not dead
        if store.find(blob.sha256) == blob:
            return True
        session.rollback()  # it was collected since it was listed
        return False


def _batches(blobs: Iterator[StoredBlob]) -> Iterator[list[StoredBlob]]:
    while batch := list(islice(blobs, _BLOBS_AT_A_TIME)):
        yield batch


def _is_unnamed() -> ColumnElement[bool]:
    names = (CheckpointRow.sha256, ArtifactRow.sha256, AttemptRow.logs)
    return and_(*(~exists().where(name == BlobRow.sha256) for name in names))
