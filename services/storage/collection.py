"""Collection of blobs that no row names: checkpoints that others have replaced, files that were never named.

Bytes without any row, because the process died in between, are given one (`adopt`) and are then such a blob.
A blob may be sent long before a row names it, and sent again while it is collected. So a young one is left alone, and
its row says that it is going before its bytes do: until it is gone it is neither named nor sent (`keep_blob`). Where
whoever removes it dies, it is removed again, or stored anew, once he has had `GOING` for it. No transaction waits for
the store.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from services.storage.artifacts import GOING
from services.storage.blob_store import BlobStore, StoredBlob
from services.storage.database import Database, database_now, insert_if_absent
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
    """Removes every blob that no row names and that was sent longer ago than `min_age`, one after the other."""
    with database.reading() as session:
        now = database_now(session)
        candidates = session.scalars(select(BlobRow.sha256).where(_may_go(now, min_age))).all()
    sizes: list[int] = []
    refused = 0
    for sha256 in candidates:
        try:
            size = _collect_one(database, store, sha256, min_age)
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


def _collect_one(database: Database, store: BlobStore, sha256: str, min_age: timedelta) -> int | None:
    with database.writing.begin() as session:
        held = select(BlobRow.sha256).where(BlobRow.sha256 == sha256).with_for_update(skip_locked=True)
        if session.scalar(held) is None:
            return None
        now = database_now(session)  # what others have committed is seen from here on, and no more is added
        going = update(BlobRow).where(BlobRow.sha256 == sha256, _may_go(now, min_age)).values(going_at=now)
        size = session.scalar(going.returning(BlobRow.size))
    if size is not None:
        store.delete(sha256)
        with database.writing.begin() as session:
            session.execute(delete(BlobRow).where(BlobRow.sha256 == sha256, BlobRow.going_at == now))
    return size


def _adopt_one(database: Database, store: BlobStore, blob: StoredBlob) -> bool:
    with database.writing.begin() as session:
        now = database_now(session)
        values = {"sha256": blob.sha256, "size": blob.size, "created_at": now, "going_at": now}
        if not insert_if_absent(session, BlobRow, **values):
            return False  # its writer was not dead
    is_there = store.find(blob.sha256) == blob  # it may have been collected since it was listed
    with database.writing.begin() as session:
        ours = and_(BlobRow.sha256 == blob.sha256, BlobRow.going_at == now)
        if is_there:
            session.execute(update(BlobRow).where(ours).values(going_at=None))
        else:
            session.execute(delete(BlobRow).where(ours))
    return is_there


def _batches(blobs: Iterator[StoredBlob]) -> Iterator[list[StoredBlob]]:
    while batch := list(islice(blobs, _BLOBS_AT_A_TIME)):
        yield batch


def _may_go(now: datetime, min_age: timedelta) -> ColumnElement[bool]:
    """Whether nothing names a blob of a query, it is old, and nobody is removing it."""
    is_idle = or_(BlobRow.going_at.is_(None), BlobRow.going_at <= now - GOING)
    return and_(BlobRow.created_at <= now - min_age, is_idle, _is_unnamed())


def _is_unnamed() -> ColumnElement[bool]:
    names = (CheckpointRow.sha256, ArtifactRow.sha256, AttemptRow.logs)
    return and_(*(~exists().where(name == BlobRow.sha256) for name in names))
