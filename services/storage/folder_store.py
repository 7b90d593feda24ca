"""Blobs in a folder of this machine: the embedded default."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from services.storage.blob_store import StoredBlob, UnusableStore, check_digest, copy_verified, is_digest, verified_copy
from services.storage.errors import NotFound, Unavailable

_UNFINISHED = "incoming-"  # begins the names of files that are still written


class FolderStore:
    """Files named by their digest, in folders named by its first two digits."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def put(self, sha256: str, body: IO[bytes]) -> int:
        """See BlobStore. Written beside its place, synced, then named: a name never stands for half a file."""
        check_digest(sha256)
        path = self._path(sha256)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=_UNFINISHED) as file:
            size = copy_verified(body, file, sha256)
            file.flush()
            os.fsync(file.fileno())
            if not _is_whole(path, sha256):
                _place(file.name, path)
        return size

    def open(self, sha256: str) -> IO[bytes]:
        """See BlobStore."""
        check_digest(sha256)
        path = self._path(sha256)
        if not path.is_file():
            raise NotFound(f"the store has no blob {sha256}")
        with path.open("rb") as body:
            return verified_copy(body, sha256)

    def delete(self, sha256: str) -> None:
        """See BlobStore."""
        check_digest(sha256)
        self._path(sha256).unlink(missing_ok=True)

    def find(self, sha256: str) -> StoredBlob | None:
        """See BlobStore."""
        check_digest(sha256)
        with suppress(FileNotFoundError):
            return StoredBlob(sha256, self._path(sha256).stat().st_size)
        return None

    def blobs(self) -> Iterator[StoredBlob]:
        """See BlobStore."""
        for path in self._folder.glob("??/*"):
            if is_digest(path.name) and (found := self.find(path.name)) is not None:
                yield found

    def abandon(self, until: datetime) -> int:
        """See BlobStore. A process that was killed leaves the file that it wrote."""
        left = 0
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):  # its writer has ended meanwhile
                if path.stat().st_mtime < until.timestamp():
                    path.unlink()
                    left += 1
        return left

    def probe(self) -> None:
        """See BlobStore. A link is made only where none is: there are file systems without them."""
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=_UNFINISHED) as file:
                link = Path(f"{file.name}-link")
                os.link(file.name, link)
                link.unlink()
        except OSError as error:
            raise UnusableStore("folder", f"blobs cannot be written to {self._folder}: {error.strerror}") from error

    def check(self) -> None:
        """See BlobStore."""
        if not os.access(self._folder, os.W_OK):
            raise Unavailable("the blob folder cannot be written")

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _place(source: str, path: Path) -> None:
    """Gives a file its name, also in place of a damaged one: another writer's, of the same bytes, is never missed."""
    link = Path(f"{source}-link")
    os.link(source, link)
    link.replace(path)
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
