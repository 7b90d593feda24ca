"""What docs/operations.md says of backups: taken while others write, everything lost, restored whole."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from services.client.schemas import JobState
from services.storage.database import Database, open_database, require_migrated
from services.storage.folder_store import FolderStore
from services.storage.fsck import FaultKind, find_faults
from services.storage.jobs import find_job
from tests.postgresql import postgresql_binaries
from tests.storage.builders import BLOB, a_checkpoint, a_trained_job, an_artifact

Dump = Callable[[], None]


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--recursive", "--no-clobber", f"{source}/.", target], check=True)


@pytest.fixture
def dump_and_restore(database: Database, database_url: str, tmp_path: Path) -> tuple[Dump, Dump]:
    """Writes the database to a file; puts it back after everything in the database was dropped."""
    url = make_url(database_url)
    file = tmp_path / "dumped"
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        path = Path(url.database)

        def dump() -> None:
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(file)) as target:
                source.backup(target)

        def restore() -> None:
            database.engine.dispose()
            for left in path.parent.glob(f"{path.name}*"):
                left.unlink()
            shutil.copy(file, path)

        return dump, restore
    address = str(url.set(drivername="postgresql"))
    binaries = postgresql_binaries()
    assert binaries is not None, "the database runs from there"

    def dump_postgresql() -> None:
        subprocess.run([binaries / "pg_dump", "--format=custom", f"--file={file}", address], check=True)

    def restore_postgresql() -> None:
        with database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        database.engine.dispose()
        command = [binaries / "pg_restore", "--exit-on-error", "--no-owner"]
        subprocess.run([*command, f"--dbname={address}", file], check=True)

    return dump_postgresql, restore_postgresql


@pytest.mark.row(24, "back up, drop everything, restore, fsck: what the database names is there and whole")
def test_what_was_backed_up_is_restored_whole(
    database: Database, database_url: str, dump_and_restore: tuple[Dump, Dump], tmp_path: Path
):
    dump, restore = dump_and_restore
    blobs, backup = tmp_path / "blobs", tmp_path / "backup"
    first = a_trained_job(database, FolderStore(blobs))
    copy(blobs, backup)
    second = a_trained_job(database, FolderStore(blobs), b"after the first copy")
    dump()
    third = a_trained_job(database, FolderStore(blobs), b"after the dump")
    copy(blobs, backup)

    shutil.rmtree(blobs)
    restore()
    store = FolderStore(blobs)
    copy(backup, blobs)

    restored = open_database(database_url)
    require_migrated(restored)
    (fault,) = find_faults(restored, store)
    assert (fault.kind, fault.sha256) == (FaultKind.UNKNOWN, a_checkpoint(b"after the dump").sha256)
    with restored.reading() as session:
        assert [find_job(session, job).state for job in (first, second)] == [JobState.SUCCEEDED] * 2
        assert third not in session.scalars(text("SELECT id FROM jobs")).all()
    with store.open(an_artifact().sha256) as body:
        assert body.read() == BLOB
    restored.engine.dispose()
