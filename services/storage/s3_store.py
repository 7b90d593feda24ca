"""Blobs in a bucket of an S3 server."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from services.storage.blob_store import check_digest, copy_verified, verified_copy
from services.storage.errors import NotFound, Unavailable

# minio waits five minutes and tries six times on its own.
_TIMEOUT = urllib3.Timeout(connect=5, read=30)
_RETRIES = urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])


class S3Store:
    """Objects named `blobs/<sha256>`; the bucket is made where it is missing."""

    def __init__(self, *, endpoint: str, bucket: str, access_key: str, secret_key: str, secure: bool) -> None:
        self._bucket = bucket
        self._client = Minio(
            endpoint=endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=secure,
            http_client=urllib3.PoolManager(timeout=_TIMEOUT, retries=_RETRIES, maxsize=10),
        )

    def make_bucket(self) -> None:
        """Makes the bucket unless it is there."""
        with _answering():
            if not self._client.bucket_exists(bucket_name=self._bucket):
                self._client.make_bucket(bucket_name=self._bucket)

    def put(self, sha256: str, body: IO[bytes]) -> int:
        """See BlobStore. Verified on the local disk first: the store is only sent what is right."""
        check_digest(sha256)
        with tempfile.TemporaryFile() as file:
            size = copy_verified(body, file, sha256)
            file.seek(0)
            with _answering():
                if not self._holds(sha256, size):
                    self._client.put_object(bucket_name=self._bucket, object_name=_name(sha256), data=file, length=size)
        return size

    def open(self, sha256: str) -> IO[bytes]:
        """See BlobStore. minio returns corrupted bodies as good, so the copy is hashed."""
        check_digest(sha256)
        with _answering():
            response = self._client.get_object(bucket_name=self._bucket, object_name=_name(sha256))
            try:
                return verified_copy(response, sha256)
            finally:
                response.close()
                response.release_conn()

    def delete(self, sha256: str) -> None:
        """See BlobStore."""
        check_digest(sha256)
        with _answering():
            self._client.remove_object(bucket_name=self._bucket, object_name=_name(sha256))

    def check(self) -> None:
        """See BlobStore."""
        with _answering():
            if not self._client.bucket_exists(bucket_name=self._bucket):
                raise Unavailable(f"the store has no bucket {self._bucket!r}")

    def _holds(self, sha256: str, size: int) -> bool:
        try:
            return self._client.stat_object(bucket_name=self._bucket, object_name=_name(sha256)).size == size
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return False


def _name(sha256: str) -> str:
    return f"blobs/{sha256}"


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code == "NoSuchKey":
            raise NotFound("the store has no such blob") from error
        raise Unavailable(f"the store refused: {error.code}") from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise Unavailable("the store does not answer") from error
