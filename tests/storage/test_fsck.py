"""Faults between rows and store are found and named, and nothing else is."""

import hashlib
import io
from pathlib import Path

import pytest
from alembic import command

from services.storage.artifacts import keep_blob
from services.storage.blob_store import BlobStore
from services.storage.database import Database, migrating, open_database, require_migrated
from services.storage.errors import Unavailable
from services.storage.folder_store import FolderStore
from services.storage.fsck import Fault, FaultKind, find_faults
from services.storage.tables import BlobRow
from tests.contracts.s3_servers import S3Server
from tests.storage.builders import BLOB, STATE, a_trained_job

NETWORK = hashlib.sha256(BLOB).hexdigest()
CHECKPOINT = hashlib.sha256(STATE).hexdigest()


@pytest.fixture
def job(database: Database, store: FolderStore) -> str:
    """A job that has made a checkpoint and a network, both in the folder."""
    return a_trained_job(database, store)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs")


def path_of(tmp_path: Path, sha256: str) -> Path:
    return tmp_path / "blobs" / sha256[:2] / sha256


def test_rows_and_store_that_agree_have_no_faults(database: Database, store: FolderStore, job: str):
    assert list(find_faults(database, store)) == []


@pytest.mark.parametrize(
    ("damaged", "kind"), [(b"", FaultKind.TRUNCATED), (BLOB[:-1] + b"x", FaultKind.CORRUPT), (None, FaultKind.MISSING)]
)
def test_a_damaged_blob_is_named_with_what_names_it(
    database: Database, store: FolderStore, job: str, tmp_path: Path, damaged: bytes | None, kind: FaultKind
):
    if damaged is None:
        path_of(tmp_path, NETWORK).unlink()
    else:
        path_of(tmp_path, NETWORK).write_bytes(damaged)

    detail = f"{len(BLOB)} bytes, artifact network.safetensors of job {job}"
    assert list(find_faults(database, store)) == [Fault(kind, NETWORK, detail)]


def test_a_lost_checkpoint_is_named(database: Database, store: FolderStore, job: str, tmp_path: Path):
    path_of(tmp_path, CHECKPOINT).unlink()

    (fault,) = find_faults(database, store)

    assert str(fault) == f"missing {CHECKPOINT}: 5 bytes, checkpoint of job {job}"


def test_bytes_without_a_row_are_named(database: Database, store: FolderStore):
    store.put(CHECKPOINT, io.BytesIO(STATE))

    (fault,) = find_faults(database, store)

    assert (fault.kind, fault.sha256) == (FaultKind.UNKNOWN, CHECKPOINT)


def test_the_faults_of_an_s3_store_are_found(database: Database, s3_server: S3Server):
    store, bucket = s3_server.new_store()
    for body in (b"one", b"two", b"three"):
        keep_blob(database, store, hashlib.sha256(body).hexdigest(), io.BytesIO(body))
    assert kinds(database, store) == []

    s3 = s3_server.client()
    s3.put_object(Bucket=bucket, Key=f"blobs/{hashlib.sha256(b'one').hexdigest()}", Body=b"One")
    s3.put_object(Bucket=bucket, Key=f"blobs/{hashlib.sha256(b'two').hexdigest()}", Body=b"tw")
    store.delete(hashlib.sha256(b"three").hexdigest())
    store.put(CHECKPOINT, io.BytesIO(STATE))

    assert kinds(database, store) == ["corrupt", "missing", "truncated", "unknown"]


def kinds(database: Database, store: BlobStore) -> list[str]:
    return sorted(fault.kind for fault in find_faults(database, store))


def test_what_is_collected_meanwhile_is_no_fault(database: Database, store: FolderStore, tmp_path: Path):
    class CollectedStore(FolderStore):
        def open(self, sha256: str) -> io.BytesIO:  # its row goes with its bytes
            with database.writing.begin() as session:
                session.delete(session.get_one(BlobRow, sha256))
            self.delete(sha256)
            return super().open(sha256)

    keep_blob(database, store, CHECKPOINT, io.BytesIO(STATE))

    assert list(find_faults(database, CollectedStore(tmp_path / "blobs"))) == []


def test_a_schema_of_another_version_is_not_compared(tmp_path: Path):
    database = open_database(f"sqlite:///{tmp_path / 'old.db'}")
    with migrating(database) as config:
        command.upgrade(config, "0003")

    with pytest.raises(Unavailable, match="of revision 0003"):
        require_migrated(database)
    database.engine.dispose()
