"""Blobs in a folder of this machine: the embedded default."""

import os
import tempfile
from pathlib import Path
from typing import IO

from services.storage.blob_store import check_digest, copy_verified, verified_copy
from services.storage.errors import NotFound, Unavailable


class FolderStore:
    """Files named by their digest, in folders named by its first two digits."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def put(self, sha256: str, body: IO[bytes]) -> int:
        """See BlobStore. Written beside its place, synced, then linked: a name never stands for half a file."""
        check_digest(sha256)
        path = self._path(sha256)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="incoming-") as file:
            size = copy_verified(body, file, sha256)
            file.flush()
            os.fsync(file.fileno())
            if not path.exists():
                _link(file.name, path)
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

    def check(self) -> None:
        """See BlobStore."""
        if not os.access(self._folder, os.W_OK):
            raise Unavailable("the blob folder cannot be written")

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _link(source: str, path: Path) -> None:
    try:
        os.link(source, path)  # creates the name or fails: it never replaces
    except FileExistsError:
        return  # another writer of the same bytes was first
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
