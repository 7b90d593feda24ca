"""Collection takes what no row names, and never what one names or may still name."""

import hashlib
import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import select, update

from services.client.schemas import JobKind
from services.storage.artifacts import keep_blob, require_blob
from services.storage.attempts import lock_attempt
from services.storage.blob_store import BlobStore, StoredBlob
from services.storage.collection import Collected, abandon, adopt, collect, unnamed_bytes
from services.storage.database import Database, database_now
from services.storage.errors import DomainError, InvalidRequest, NotFound, Unavailable
from services.storage.folder_store import FolderStore
from services.storage.tables import BlobRow
from services.storage.worker_writes import KEPT_CHECKPOINTS, add_checkpoint, latest_checkpoints, succeed
from tests.contracts.s3_servers import S3Server
from tests.storage.builders import BLOB, Worker, a_checkpoint, a_job, a_started_worker, a_success

DAY = timedelta(hours=24)
BODY = b"weights"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs")


def keep(database: Database, store: BlobStore, body: bytes = BODY) -> str:
    sha256 = hashlib.sha256(body).hexdigest()
    keep_blob(database, store, sha256, io.BytesIO(body))
    return sha256


def age(database: Database, hours: float = 25) -> None:
    """Lets every blob have been sent this long ago, and those that go have gone since then."""
    with database.writing.begin() as session:
        ago = database_now(session) - timedelta(hours=hours)
        session.execute(update(BlobRow).values(created_at=ago))
        session.execute(update(BlobRow).where(BlobRow.going_at.is_not(None)).values(going_at=ago))


def is_there(database: Database, store: BlobStore, sha256: str) -> bool:
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


def test_a_blob_that_is_collected_is_neither_sent_nor_named_until_it_is_gone(database: Database, tmp_path: Path):
    def send_and_name() -> None:
        with pytest.raises(Unavailable, match="send it again"):
            keep(database, store)
        with database.writing.begin() as session, pytest.raises(InvalidRequest, match="was not uploaded"):
            require_blob(session, sha256, len(BODY), "sha256")
        assert collect(database, store, DAY).blobs == 0, "another replica leaves it alone"

    store = InterruptedStore(tmp_path, send_and_name)
    sha256 = keep(database, store)
    age(database)

    assert collect(database, store, DAY) == Collected(1, len(BODY), 0)
    assert not is_there(database, store, sha256)

    keep(database, store)
    assert is_there(database, store, sha256)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite lets one write at a time
def test_a_blob_that_is_about_to_be_named_is_left_alone(database: Database, store: FolderStore):
    sha256 = keep(database, store)
    age(database)

    with database.writing.begin() as session:
        require_blob(session, sha256, len(BODY), "sha256")
        assert collect(database, store, DAY) == Collected(0, 0, 0)

    assert is_there(database, store, sha256)


class SlowStore(FolderStore):
    """Others write while it is asked."""

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder)
        self._database = database

    def delete(self, sha256: str) -> None:
        a_job(self._database)
        super().delete(sha256)

    def find(self, sha256: str) -> StoredBlob | None:
        a_job(self._database)
        return super().find(sha256)


def test_others_write_while_the_store_is_asked(database: Database, tmp_path: Path):
    store = SlowStore(tmp_path, database)
    keep(database, store)
    age(database)
    assert collect(database, store, DAY) == Collected(1, len(BODY), 0)
    store.put(hashlib.sha256(BODY).hexdigest(), io.BytesIO(BODY))

    assert adopt(database, store) == 1


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


def collect_and_die(database: Database, folder: Path) -> str:
    """The digest of a blob whose bytes are gone, and whose row is not."""

    def die() -> None:
        raise Unavailable("killed")

    sha256 = keep(database, FolderStore(folder))
    age(database)
    assert collect(database, InterruptedStore(folder, die), DAY) == Collected(0, 0, 1)
    return sha256


def test_a_collection_that_was_killed_between_bytes_and_row_is_finished_by_the_next(database: Database, tmp_path: Path):
    sha256, store = collect_and_die(database, tmp_path), FolderStore(tmp_path)
    assert collect(database, store, DAY).blobs == 0

    age(database)

    assert collect(database, store, DAY).blobs == 1
    assert not is_there(database, store, sha256)


def test_a_blob_that_is_sent_after_such_a_kill_is_whole(database: Database, tmp_path: Path):
    sha256, store = collect_and_die(database, tmp_path), FolderStore(tmp_path)
    with pytest.raises(Unavailable):
        keep(database, store)
    age(database)

    keep(database, store)

    assert is_there(database, store, sha256)
    assert collect(database, store, DAY).blobs == 0


@pytest.fixture(params=["folder", "moto", pytest.param("ceph", marks=pytest.mark.s3)])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "blobs")
    server: S3Server = request.getfixturevalue(request.param)
    return server.new_store()[0]


def test_bytes_without_a_row_are_removed_once_they_are_known_for_long(database: Database, any_store: BlobStore):
    kept = keep(database, any_store, b"other")
    sha256 = hashlib.sha256(BODY).hexdigest()
    any_store.put(sha256, io.BytesIO(BODY))  # and its writer dies

    assert adopt(database, any_store) == 1
    assert adopt(database, any_store) == 0
    age(database, hours=23)
    assert collect(database, any_store, DAY).blobs == 0
    assert is_there(database, any_store, sha256)

    age(database)

    assert collect(database, any_store, DAY).blobs == 2
    assert not is_there(database, any_store, sha256)
    assert not is_there(database, any_store, kept)


def test_a_blob_that_is_collected_after_it_was_listed_gets_no_row(database: Database, tmp_path: Path):
    class LateStore(FolderStore):
        def blobs(self) -> Iterator[StoredBlob]:
            listed = list(super().blobs())
            assert collect(database, self, DAY).blobs == 1
            yield from listed

    store = LateStore(tmp_path)
    sha256 = keep(database, store)
    age(database)

    assert adopt(database, store) == 0
    assert not is_there(database, store, sha256)


def test_a_blob_that_is_sent_while_its_bytes_get_a_row_is_there_afterwards(database: Database, tmp_path: Path):
    class AdoptingStore(FolderStore):
        def put(self, sha256: str, body: IO[bytes]) -> int:
            size = super().put(sha256, body)  # the bytes are there already: nothing is written
            assert adopt(database, self) == 1
            assert collect(database, self, DAY).blobs == 0
            return size

    sha256 = hashlib.sha256(BODY).hexdigest()
    FolderStore(tmp_path).put(sha256, io.BytesIO(BODY))

    keep(database, AdoptingStore(tmp_path))

    assert is_there(database, FolderStore(tmp_path), sha256)


def test_what_is_left_of_killed_writers_is_removed_once_it_is_old(database: Database, tmp_path: Path):
    store = FolderStore(tmp_path / "blobs")
    left = tmp_path / "blobs" / "incoming-killed"
    left.write_bytes(BODY)

    assert abandon(database, store, DAY) == 0
    assert abandon(database, store, -DAY) == 1  # a writer that begins tomorrow is no younger
    assert not left.exists()


class Senders:
    """Workers of several jobs that send, name and resume the same few bodies while others age and collect these.

    A blob ages, by more than collection's least age, only while nobody sends it: sending takes less than that.
    """

    def __init__(self, database: Database, store: BlobStore, seed: int) -> None:
        self._database, self._store, self._seed = database, store, seed
        self._guard = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self.faults: list[str] = []
        self.collected = self.adopted = 0
        self.ended = threading.Event()

    def work(self, worker: Worker, number: int, rounds: int) -> None:
        choose = random.Random(self._seed + number)
        for _ in range(rounds):
            self._resume(worker)
            body = b"state %d" % choose.randrange(8)
            if choose.random() < 0.3:  # a writer that dies before it writes the row
                with suppress(Unavailable):  # what was there already is collected at this moment
                    self._store.put(hashlib.sha256(body).hexdigest(), io.BytesIO(body))
            else:
                self._send(worker, body)

    def disturb(self) -> None:
        """Ages, collects and adopts until all have ended."""
        choose = random.Random(self._seed)
        while not self.ended.is_set():
            with self._guard:
                idle = [blob.sha256 for blob in self._store.blobs() if not self._under_way[blob.sha256]]
                with self._database.writing.begin() as session:
                    old = database_now(session) - 2 * DAY
                    aged = choose.sample(idle, len(idle) // 2)
                    session.execute(update(BlobRow).where(BlobRow.sha256.in_(aged)).values(created_at=old))
            self.collected += collect(self._database, self._store, DAY).blobs
            self.adopted += adopt(self._database, self._store)

    def _resume(self, worker: Worker) -> None:
        with self._database.reading() as session:
            checkpoints = latest_checkpoints(session, worker.assignment.job)
        for checkpoint in checkpoints:
            self._read(checkpoint.sha256, "a checkpoint is gone")

    def _send(self, worker: Worker, body: bytes) -> None:
        sha256 = hashlib.sha256(body).hexdigest()
        with self._guard:
            self._under_way[sha256] += 1
        self._keep(body)
        self._read(sha256, "what was just sent is gone")
        with self._database.writing.begin() as session:
            add_checkpoint(session, worker.submission_id, worker.token, a_checkpoint(body))
        with self._guard:
            self._under_way[sha256] -= 1

    def _keep(self, body: bytes) -> None:
        while True:  # as a client does that is told to come again
            with suppress(Unavailable):
                keep(self._database, self._store, body)
                return

    def _read(self, sha256: str, fault: str) -> None:
        try:
            self._store.open(sha256).close()
        except DomainError as error:
            self.faults.append(f"{fault}: {error}")


@pytest.mark.row(23, "collection racing resume and upload: no blob that a row names, or that is being sent, is removed")
@pytest.mark.parametrize("rounds", [12, pytest.param(100, marks=pytest.mark.fault)])
def test_collection_never_takes_what_others_send_name_and_resume(
    database: Database, any_store: BlobStore, rounds: int, record_property
):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    senders = Senders(database, any_store, seed)
    jobs = [a_job(database, JobKind.RETRAIN) for _ in range(3)]
    workers = [a_started_worker(database) for _ in jobs]
    with ThreadPoolExecutor() as pool:
        disturbing = pool.submit(senders.disturb)
        working = [pool.submit(senders.work, worker, number, rounds) for number, worker in enumerate(workers)]
        wait(working)
        senders.ended.set()
        for work in (*working, disturbing):
            work.result()

    assert senders.faults == []
    assert senders.collected + senders.adopted > 0
    with database.reading() as session:
        rows = session.scalars(select(BlobRow.sha256)).all()
    assert all(is_there(database, any_store, sha256) for sha256 in rows)
    record_property("runs", rounds * len(jobs))
    record_property("most blobs collected in a run", senders.collected)
