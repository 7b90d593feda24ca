"""Links to blobs of an S3 store: each is good for one blob, for reading, and for a while, whoever has it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from minio import Minio

from services.storage.blob_store import check_digest
from services.storage.s3_store import object_name


class S3Links:
    """Signs links to the blobs of an S3Store, for who reaches its server under `address`, as in `https://host:port`.

    Neither the server nor anybody else is asked: a link to a blob that is not there is one that the server refuses.
    """

    def __init__(
        self,
        *,
        address: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str,
        lifetime: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        url = urlsplit(address)
        self._bucket, self._lifetime, self._clock = bucket, lifetime, clock
        self._client = Minio(
            endpoint=url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=url.scheme == "https",
            region=region,  # which minio would ask the server for
        )

    def link(self, sha256: str, *, disposition: str) -> str:
        """Where a GET request gets a blob, under this Content-Disposition; the address is signed, too."""
        check_digest(sha256)
        link: str = self._client.presigned_get_object(
            bucket_name=self._bucket,
            object_name=object_name(sha256),
            expires=self._lifetime,
            response_headers={"response-content-disposition": disposition},
            request_date=self._clock(),
        )
        return link
