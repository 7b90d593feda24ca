"""S3 servers for tests: where one listens, whom it lets in, and a way past the store to what it keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import boto3
from moto.server import ThreadedMotoServer

from services.storage.s3_links import S3Links
from services.storage.s3_store import S3Store

REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class S3Server:
    endpoint: str  # host:port, without TLS
    access_key: str
    secret_key: str

    def store(self, bucket: str) -> S3Store:
        """A store on a bucket, which need not be there."""
        keys = {"access_key": self.access_key, "secret_key": self.secret_key}
        return S3Store(endpoint=self.endpoint, bucket=bucket, secure=False, region=REGION, **keys)

    def new_store(self) -> tuple[S3Store, str]:
        """A store on an empty bucket, and the bucket's name."""
        bucket = f"test-{uuid4().hex}"
        store = self.store(bucket)
        store.probe()
        return store, bucket

    def links(self, bucket: str, **changes: object) -> S3Links:
        """Links to the blobs of a bucket, which are good for a minute."""
        values = {
            "address": f"http://{self.endpoint}",
            "bucket": bucket,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region": REGION,
            "lifetime": timedelta(minutes=1),
        }
        return S3Links(**{**values, **changes})

    def client(self):
        """The server as boto3 speaks to it."""
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.endpoint}",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
        )


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """A mock behind a real HTTP server; it lets in whoever shows any keys."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(endpoint=f"{host}:{port}", access_key="test", secret_key="test")
    server.stop()
