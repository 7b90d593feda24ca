"""Blobs in a bucket of an S3 server."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from typing import IO, BinaryIO
from uuid import uuid4

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from services.storage.blob_store import StoredBlob, UnusableStore, check_digest, copy_verified, is_digest, verified_copy
from services.storage.errors import NotFound, Unavailable

PART_BYTES = 16 << 20  # a larger blob is sent in parts of this size, of which one is in memory
_PREFIX = "blobs/"
_ARGUMENTS = {  # of S3Store, by S3's words for what is wrong with them
    "AccessDenied": "access_key",
    "AuthorizationHeaderMalformed": "region",
    "InvalidAccessKeyId": "access_key",
    "SignatureDoesNotMatch": "secret_key",
    "BucketAlreadyExists": "bucket",
    "InvalidBucketName": "bucket",
    "InvalidLocationConstraint": "region",
    "NoSuchBucket": "bucket",
}
# minio waits five minutes and tries six times on its own. A part must be sent within the first of the two timeouts: at
# .6 MB/s or more.
_TIMEOUT = urllib3.Timeout(connect=30, read=30)
_RETRIES = urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
_CHECK_SECONDS = 3.0


class S3Store:
    """Objects named `blobs/<sha256>`, of at most 156 GB: ten thousand parts."""

    def __init__(
        self, *, endpoint: str, bucket: str, access_key: str, secret_key: str, secure: bool, region: str
    ) -> None:
        self._endpoint, self._bucket = endpoint, bucket

        def client(timeout: urllib3.Timeout, retries: urllib3.Retry) -> Minio:
            return Minio(
                endpoint=endpoint,
                access_key=access_key,
                secret_key=secret_key,
                secure=secure,
                region=region,
                http_client=urllib3.PoolManager(timeout=timeout, retries=retries, maxsize=10),
            )

        self._client = client(_TIMEOUT, _RETRIES)
        self._checking = client(urllib3.Timeout(_CHECK_SECONDS), urllib3.Retry(0))

    def put(self, sha256: str, body: IO[bytes]) -> int:
        """See BlobStore. Verified on the local disk first: the store is only sent what is right.

        Sent also where the store seems to have it: its size would not tell whether it is damaged.
        """
        check_digest(sha256)
        with tempfile.TemporaryFile() as file:
            blob = StoredBlob(sha256, copy_verified(body, file, sha256))
            file.seek(0)
            self._send(blob, file)
        return blob.size

    def open(self, sha256: str) -> IO[bytes]:
        """See BlobStore. minio returns corrupted bodies as good, so the copy is hashed."""
        check_digest(sha256)
        with _answering():
            response = self._client.get_object(bucket_name=self._bucket, object_name=object_name(sha256))
            try:
                return verified_copy(response, sha256)
            finally:
                response.close()
                response.release_conn()

    def delete(self, sha256: str) -> None:
        """See BlobStore."""
        check_digest(sha256)
        with _answering():
            self._client.remove_object(bucket_name=self._bucket, object_name=object_name(sha256))

    def find(self, sha256: str) -> StoredBlob | None:
        """See BlobStore."""
        check_digest(sha256)
        with _answering():
            try:
                found = self._client.stat_object(bucket_name=self._bucket, object_name=object_name(sha256))
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return None
        assert found.size is not None, "S3 always says it"
        return StoredBlob(sha256, found.size)

    def blobs(self) -> Iterator[StoredBlob]:
        """See BlobStore."""
        with _answering():
            for found in self._client.list_objects(bucket_name=self._bucket, prefix=_PREFIX):
                sha256 = found.object_name.removeprefix(_PREFIX)
                if is_digest(sha256):
                    yield StoredBlob(sha256, found.size)

    def abandon(self, until: datetime) -> int:
        """See BlobStore. Parts of an upload that was not completed are kept, and in no listing, until it is aborted."""
        left, marker = 0, None
        with _answering():
            while True:
                # minio's public methods list no uploads
                page = self._client._list_multipart_uploads(self._bucket, prefix=_PREFIX, key_marker=marker)
                for upload in page.uploads:
                    assert upload.initiated_time is not None, "S3 always says it"
                    assert upload.upload_id is not None, "S3 always says it"
                    if upload.initiated_time < until:
                        self._abort(upload.object_name, upload.upload_id)
                        left += 1
                if not page.is_truncated:
                    return left
                marker = page.next_key_marker

    def probe(self) -> None:
        """See BlobStore. The bucket is made where it is missing."""
        try:
            self._make_bucket()
            self._try_out()
        except S3Error as error:
            argument = _ARGUMENTS.get(error.code or "", "endpoint")
            raise UnusableStore(argument, f"the S3 server at {self._endpoint} refused: {error.code}") from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            cause = getattr(error, "reason", None) or error
            argument = "secure" if isinstance(cause, urllib3.exceptions.SSLError) else "endpoint"
            raise UnusableStore(argument, f"no S3 server answers at {self._endpoint}: {cause}") from error
        except ValueError as error:  # minio's, of names
            raise UnusableStore("bucket", str(error)) from error

    def check(self) -> None:
        """See BlobStore."""
        with _answering():
            if not self._checking.bucket_exists(bucket_name=self._bucket):
                raise Unavailable(f"the store has no bucket {self._bucket!r}")

    def _make_bucket(self) -> None:
        try:
            # Refusals of GET say what is wrong, those of HEAD, with which minio asks whether there is a bucket, do not.
            next(self._client.list_objects(bucket_name=self._bucket, prefix="probe/"), None)
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            self._client.make_bucket(bucket_name=self._bucket)

    def _try_out(self) -> None:
        name, body = f"probe/{uuid4().hex}", os.urandom(1000)
        self._client.put_object(bucket_name=self._bucket, object_name=name, data=BytesIO(body), length=len(body))
        try:
            listed = [found.object_name for found in self._client.list_objects(bucket_name=self._bucket, prefix=name)]
            response = self._client.get_object(bucket_name=self._bucket, object_name=name)
            with response:
                received = response.read()
            response.release_conn()
        finally:
            self._client.remove_object(bucket_name=self._bucket, object_name=name)
        self._client._list_multipart_uploads(self._bucket, prefix=_PREFIX)
        if listed != [name] or received != body:
            raise UnusableStore("endpoint", f"the S3 server at {self._endpoint} did not return what it was sent")

    def _send(self, blob: StoredBlob, file: BinaryIO) -> None:
        """Parts go one after the other: none is under way any more when minio aborts an upload that failed."""
        with _answering():
            self._client.put_object(
                bucket_name=self._bucket,
                object_name=object_name(blob.sha256),
                data=file,
                length=blob.size,
                part_size=PART_BYTES,
                num_parallel_uploads=1,
            )
        if self.find(blob.sha256) != blob:  # a server may say that it could not put the parts together with status 200
            raise Unavailable("the store took the blob, and does not have it")

    def _abort(self, name: str, upload: str) -> None:
        try:
            self._client._abort_multipart_upload(self._bucket, name, upload)
        except S3Error as error:
            if error.code != "NoSuchUpload":  # it has ended meanwhile
                raise


def object_name(sha256: str) -> str:
    """What the object of a blob is called."""
    return f"{_PREFIX}{sha256}"


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
