"""Collection takes what no row names, and never what one names or may still name."""

import hashlib
import io
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import update

from services.client.schemas import JobKind
from services.storage.artifacts import keep_blob
from services.storage.attempts import lock_attempt
from services.storage.collection import Collected, collect, unnamed_bytes
from services.storage.database import Database, database_now
from services.storage.errors import NotFound, Unavailable
from services.storage.folder_store import FolderStore
from services.storage.tables import BlobRow
from services.storage.worker_writes import KEPT_CHECKPOINTS, add_checkpoint, succeed
from tests.storage.builders import BLOB, a_checkpoint, a_job, a_started_worker, a_success

DAY = timedelta(hours=24)
BODY = b"weights"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs")


def keep(database: Database, store: FolderStore, body: bytes = BODY) -> str:
    sha256 = hashlib.sha256(body).hexdigest()
    keep_blob(database, store, sha256, io.BytesIO(body))
    return sha256


def age(database: Database, hours: float = 25) -> None:
    """Lets every blob have been sent this long ago."""
    with database.writing.begin() as session:
        session.execute(update(BlobRow).values(created_at=database_now(session) - timedelta(hours=hours)))


def is_there(database: Database, store: FolderStore, sha256: str) -> bool:
    """Whether a blob has a row and its bytes; never one without the other."""
    with database.reading() as session:
        row = session.get(BlobRow, sha256)
    if row is None:
        with pytest.raises(NotFound):
            store.open(sha256)
        return False
    with store.open(sha256) as body:
        return hashlib.sha256(body.read()).hexdigest() == sha256


def test_a_blob_that_nothing_names_is_removed_once_it_is_old(database: Database, store: FolderStore):
    sha256 = keep(database, store)
    age(database, hours=23)
    assert collect(database, store, DAY) == Collected(0, 0, 0)
    with database.reading() as session:
        assert unnamed_bytes(session) == len(BODY)

    age(database)

    assert collect(database, store, DAY) == Collected(1, len(BODY), 0)
    assert not is_there(database, store, sha256)


def test_what_a_row_names_stays(database: Database, store: FolderStore):
    bodies = [b"checkpoint %d" % n for n in range(KEPT_CHECKPOINTS + 2)]
    states = [keep(database, store, body) for body in bodies]
    keep(database, store, BLOB)
    a_job(database, JobKind.RETRAIN)
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        for body in bodies:
            add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(body))
    age(database)

    assert collect(database, store, DAY).blobs == 3  # the two oldest checkpoints, and a network that was never named
    assert [is_there(database, store, state) for state in states] == [False, False, True, True, True]

    network, log = keep(database, store, BLOB), keep(database, store, b"printed")
    with database.writing.begin() as session:
        succeed(session, worker.submission_id, worker.token, a_success(JobKind.RETRAIN))
        attempt, _ = lock_attempt(session, worker.submission_id)
        attempt.logs = log
    age(database)

    assert collect(database, store, DAY).blobs == 2  # of a job that has succeeded the last checkpoint is kept
    kept = [is_there(database, store, sha256) for sha256 in (*states, network, log)]
    assert kept == [False, False, False, False, True, True, True]


def test_a_blob_that_is_sent_again_is_young_again(database: Database, store: FolderStore):
    sha256 = keep(database, store)
    age(database)

    keep(database, store)

    assert collect(database, store, DAY).blobs == 0
    assert is_there(database, store, sha256)


class InterruptedStore(FolderStore):
    """Does something when a blob was deleted, before the row goes."""

    def __init__(self, folder: Path, interruption: Callable[[], None]) -> None:
        super().__init__(folder)
        self._interruption = interruption

    def delete(self, sha256: str) -> None:
        super().delete(sha256)
        self._interruption()


def test_a_blob_that_is_sent_while_it_is_collected_is_there_afterwards(database: Database, tmp_path: Path):
    def send() -> None:
        sender.start()
        sender.join(0.3)  # it waits for the collection

    sender = threading.Thread(target=lambda: keep(database, store))
    store = InterruptedStore(tmp_path, send)
    sha256 = keep(database, store)
    age(database)

    assert collect(database, store, DAY).blobs == 1
    sender.join()

    assert is_there(database, store, sha256)


def test_a_collection_while_a_blob_is_sent_again_leaves_it(database: Database, tmp_path: Path):
    class CollectedStore(FolderStore):
        def put(self, sha256: str, body: IO[bytes]) -> int:
            size = super().put(sha256, body)  # the bytes are there already: nothing is written
            assert collect(database, self, DAY).blobs == 0
            return size

    sha256 = keep(database, FolderStore(tmp_path))
    age(database)

    keep(database, CollectedStore(tmp_path))

    assert is_there(database, FolderStore(tmp_path), sha256)


def test_a_collection_that_was_killed_between_bytes_and_row_is_finished_by_the_next(database: Database, tmp_path: Path):
    def die() -> None:
        raise Unavailable("killed")

    sha256 = keep(database, FolderStore(tmp_path))
    age(database)
    assert collect(database, InterruptedStore(tmp_path, die), DAY) == Collected(0, 0, 1)

    store = FolderStore(tmp_path)
    assert collect(database, store, DAY).blobs == 1
    assert not is_there(database, store, sha256)


def test_a_blob_that_is_sent_after_such_a_kill_is_whole(database: Database, tmp_path: Path):
    store = FolderStore(tmp_path)
    sha256 = keep(database, store)
    store.delete(sha256)

    keep(database, store)

    assert is_there(database, store, sha256)
