"""Blobs under the sha256 of their bytes: the rules of every store, which tests/contracts proves for each."""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Protocol

from services.storage.errors import CorruptBlob, InvalidRequest

CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Readable(Protocol):
    """What bytes are read from: a file, or the answer of a store."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class StoredBlob:
    """What a store says that it has, unverified."""

    sha256: str
    size: int  # bytes


class UnusableStore(Exception):
    """A store that was set up wrongly, or is away; `argument` is that of its constructor to look at first."""

    def __init__(self, argument: str, detail: str) -> None:
        super().__init__(detail)
        self.argument = argument


class BlobStore(Protocol):
    """Where blobs lie. A blob is there whole and verified, or not at all; it never changes until it is deleted.

    Raises (every method that is given a digest):
        InvalidRequest: it is not 64 lower-case hexadecimal digits.
        Unavailable: the store does not answer.
    """

    def put(self, sha256: str, body: IO[bytes]) -> int:
        """Keeps a body and returns its size; a blob that is there stays as it is, unless it is damaged.

        Raises:
            InvalidRequest: the body does not hash to this digest; nothing is kept.
        """
        ...

    def open(self, sha256: str) -> IO[bytes]:
        """A blob, verified, from its beginning; the caller closes it.

        Raises:
            NotFound: the store has no such blob.
            CorruptBlob: what it has does not hash to this digest.
        """
        ...

    def delete(self, sha256: str) -> None:
        """Removes a blob; one that is not there is no fault."""
        ...

    def find(self, sha256: str) -> StoredBlob | None:
        """What the store has under a digest, unverified."""
        ...

    def blobs(self) -> Iterator[StoredBlob]:
        """Everything that the store has, in no order; what comes or goes meanwhile may be among it."""
        ...

    def abandon(self, until: datetime) -> int:
        """Removes what writers that began before this moment and never ended have left; returns how many they were."""
        ...

    def probe(self) -> None:
        """Tries on something that is no blob what the other methods rely on, and leaves nothing of it.

        Raises:
            UnusableStore: it fails.
        """
        ...

    def check(self) -> None:
        """Asks the store for a sign of life; Unavailable where it gives none."""
        ...


def check_digest(sha256: str) -> None:
    """InvalidRequest unless the text is a sha256 in hex: it becomes part of a path."""
    if not is_digest(sha256):
        raise InvalidRequest.at("sha256", "must be 64 lower-case hexadecimal digits")


def is_digest(text: str) -> bool:
    """Whether a text is a sha256 in hex."""
    return _SHA256.fullmatch(text) is not None


def chunks(body: Readable) -> Iterator[bytes]:
    """The rest of a body in pieces of CHUNK_BYTES."""
    while chunk := body.read(CHUNK_BYTES):
        yield chunk


def copy_verified(body: IO[bytes], target: IO[bytes], sha256: str) -> int:
    """Copies a body that was sent under a digest and returns its size; InvalidRequest where it does not match."""
    found, size = _copy(body, target)
    if found != sha256:
        raise InvalidRequest.at("sha256", f"the body's digest is {found}")
    return size


def verified_copy(body: Readable, sha256: str) -> IO[bytes]:
    """A copy of what a store returned, at its beginning, on the local disk; CorruptBlob where it does not match.

    The copy is what is verified: the store's bytes could change between the check and the use.
    """
    target = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        found, _ = _copy(body, target)
        if found != sha256:
            raise CorruptBlob(f"the store has other bytes under {sha256}: their digest is {found}")
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return target


def _copy(body: Readable, target: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(body):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
