"""The rules of BlobStore, run on every implementation: a folder, and a bucket of an S3 server, mocked and real."""

import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.storage.blob_store import CHUNK_BYTES, BlobStore, StoredBlob, UnusableStore
from services.storage.errors import CorruptBlob, InvalidRequest, NotFound, Unavailable
from services.storage.folder_store import FolderStore
from services.storage.s3_store import PART_BYTES, S3Store
from tests.contracts.s3_servers import REGION, S3Server

BODY = bytes(range(256)) * 8192  # two chunks
DIGEST = hashlib.sha256(BODY).hexdigest()

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

Damage = Callable[[bytes], None]


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture(params=["folder", "moto", pytest.param("ceph", marks=pytest.mark.s3)])
def store_and_damage(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BlobStore, Damage]:
    """An empty store, and a way to replace the stored bytes of BODY behind its back."""
    if request.param == "folder":
        return FolderStore(tmp_path), (tmp_path / DIGEST[:2] / DIGEST).write_bytes
    server: S3Server = request.getfixturevalue(request.param)
    store, bucket = server.new_store()
    s3 = server.client()
    return store, lambda body: s3.put_object(Bucket=bucket, Key=f"blobs/{DIGEST}", Body=body) and None


@pytest.fixture
def store(store_and_damage: tuple[BlobStore, Damage]) -> BlobStore:
    return store_and_damage[0]


def read(store: BlobStore, sha256: str = DIGEST) -> bytes:
    with store.open(sha256) as body:
        return body.read()


def test_a_blob_comes_back_as_it_was_put(store: BlobStore):
    assert store.put(DIGEST, io.BytesIO(BODY)) == len(BODY)

    assert read(store) == BODY


def test_an_empty_blob_is_a_blob(store: BlobStore):
    empty = hashlib.sha256(b"").hexdigest()

    assert store.put(empty, io.BytesIO(b"")) == 0
    assert read(store, empty) == b""


def test_putting_a_blob_again_changes_nothing(store: BlobStore):
    for _ in range(2):
        assert store.put(DIGEST, io.BytesIO(BODY)) == len(BODY)

    assert read(store) == BODY


def test_a_body_of_another_digest_is_refused_and_not_kept(store: BlobStore):
    with pytest.raises(InvalidRequest, match="the body's digest is"):
        store.put(DIGEST, io.BytesIO(BODY[:-1]))

    with pytest.raises(NotFound):
        store.open(DIGEST)


@pytest.mark.parametrize(
    "digest", ["", "..", "../../etc/passwd", "A" * 64, "a" * 63, f"{'a' * 64}\n", "%2e%2e", "\0" * 64]
)
def test_what_is_no_digest_is_refused(store: BlobStore, digest: str):
    with pytest.raises(InvalidRequest):
        store.put(digest, io.BytesIO(BODY))
    with pytest.raises(InvalidRequest):
        store.open(digest)
    with pytest.raises(InvalidRequest):
        store.delete(digest)


def test_an_unknown_blob_is_not_found(store: BlobStore):
    with pytest.raises(NotFound):
        store.open("0" * 64)


@pytest.mark.parametrize("damaged", [BODY[:-1], b"", BODY[:-1] + b"x"], ids=["truncated", "emptied", "flipped"])
def test_damage_is_detected(store_and_damage: tuple[BlobStore, Damage], damaged: bytes):
    store, damage = store_and_damage
    store.put(DIGEST, io.BytesIO(BODY))

    damage(damaged)

    with pytest.raises(CorruptBlob):
        store.open(DIGEST)


@pytest.mark.parametrize("damaged", [BODY[:-1], b"", BODY[:-1] + b"x"], ids=["truncated", "emptied", "flipped"])
def test_putting_a_damaged_blob_again_mends_it(store_and_damage: tuple[BlobStore, Damage], damaged: bytes):
    store, damage = store_and_damage
    store.put(DIGEST, io.BytesIO(BODY))
    damage(damaged)

    store.put(DIGEST, io.BytesIO(BODY))

    assert read(store) == BODY


def test_writers_of_one_blob_at_a_time_all_succeed(store: BlobStore):
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda: sizes.append(store.put(DIGEST, io.BytesIO(BODY)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sizes == [len(BODY)] * 4
    assert read(store) == BODY


def test_a_deleted_blob_is_gone_and_can_be_put_again(store: BlobStore):
    store.put(DIGEST, io.BytesIO(BODY))

    for _ in range(2):
        store.delete(DIGEST)

    with pytest.raises(NotFound):
        store.open(DIGEST)
    store.put(DIGEST, io.BytesIO(BODY))
    assert read(store) == BODY


class CountingBody(io.BytesIO):
    """Remembers the most that was asked for at a time."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.most = max(self.most, len(self.getbuffer()) if size is None or size < 0 else size)
        return super().read(size)


def test_a_body_is_read_in_pieces(store: BlobStore):
    body = CountingBody(BODY)

    store.put(DIGEST, body)

    assert body.most == CHUNK_BYTES < len(BODY)


def test_a_stored_blob_is_found_with_its_size(store: BlobStore):
    store.put(DIGEST, io.BytesIO(BODY))

    assert store.find(DIGEST) == StoredBlob(DIGEST, len(BODY))
    assert store.find("0" * 64) is None
    assert list(store.blobs()) == [StoredBlob(DIGEST, len(BODY))]


def test_a_deleted_blob_is_not_listed(store: BlobStore):
    store.put(DIGEST, io.BytesIO(BODY))

    store.delete(DIGEST)

    assert list(store.blobs()) == []
    assert store.find(DIGEST) is None


def test_nothing_is_abandoned_where_every_writer_has_ended(store: BlobStore):
    store.put(DIGEST, io.BytesIO(BODY))
    with pytest.raises(InvalidRequest):
        store.put(DIGEST, io.BytesIO(b"other"))

    assert store.abandon(in_an_hour()) == 0
    assert read(store) == BODY


def test_a_probe_leaves_nothing(store: BlobStore):
    store.probe()
    store.probe()

    assert list(store.blobs()) == []
    assert store.abandon(in_an_hour()) == 0


def test_a_store_that_answers_passes_the_check(store: BlobStore):
    store.check()


def test_a_folder_is_left_without_half_written_files(tmp_path: Path):
    store = FolderStore(tmp_path)
    store.put(DIGEST, io.BytesIO(BODY))
    with pytest.raises(InvalidRequest):
        store.put(DIGEST, io.BytesIO(b"other"))

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [DIGEST]


def test_a_damaged_file_that_goes_before_it_is_replaced_is_no_fault(tmp_path: Path):
    store = FolderStore(tmp_path)
    path = tmp_path / DIGEST[:2] / DIGEST
    path.parent.mkdir()
    os.mkfifo(path)  # whoever looks whether it is whole waits for what comes out of it
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(store.put, DIGEST, io.BytesIO(BODY))
        with path.open("wb"):
            path.unlink()

        assert written.result() == len(BODY)
    assert read(store) == BODY
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [DIGEST]


def test_a_file_that_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path):
    store = FolderStore(tmp_path)
    left = tmp_path / "incoming-killed"
    left.write_bytes(BODY[:1000])

    assert store.abandon(LONG_AGO) == 0
    assert left.exists()
    assert store.abandon(in_an_hour()) == 1
    assert not left.exists()


def test_a_large_blob_is_sent_to_s3_in_parts(s3_server: S3Server):
    store, bucket = s3_server.new_store()
    body = os.urandom(1000) * (2 * PART_BYTES // 1000 + 1)
    sha256 = hashlib.sha256(body).hexdigest()

    assert store.put(sha256, io.BytesIO(body)) == len(body)

    assert read(store, sha256) == body
    tag = s3_server.client().head_object(Bucket=bucket, Key=f"blobs/{sha256}")["ETag"]
    assert tag.endswith('-3"'), "the number of parts"


class UnreadableFrom(io.BytesIO):
    """A file of many parts, whose disk fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > PART_BYTES:
            raise OSError("the disk failed")
        return super().read(size)


def test_an_upload_to_s3_that_fails_leaves_nothing(s3_server: S3Server):
    store, bucket = s3_server.new_store()
    body = bytes(3 * PART_BYTES)
    blob = StoredBlob(hashlib.sha256(body).hexdigest(), len(body))

    with pytest.raises(OSError, match="the disk failed"):
        store._send(blob, UnreadableFrom(body))

    assert store.find(blob.sha256) is None
    assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=bucket)


def test_the_parts_of_a_killed_upload_to_s3_are_removed_once_they_are_old(s3_server: S3Server):
    store, bucket = s3_server.new_store()
    s3 = s3_server.client()
    names = [f"blobs/{DIGEST}", f"blobs/{DIGEST}", "somebody/else"]
    uploads = [s3.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"] for name in names]
    s3.upload_part(Bucket=bucket, Key=names[0], UploadId=uploads[0], PartNumber=1, Body=BODY)

    assert store.abandon(LONG_AGO) == 0
    assert store.abandon(in_an_hour()) == 2
    assert [upload["Key"] for upload in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["somebody/else"]


def test_an_s3_server_that_is_away_is_unavailable():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{closed.getsockname()[1]}"
        store = S3Store(endpoint=endpoint, bucket="blobs", access_key="a", secret_key="b", secure=False, region=REGION)

        with pytest.raises(Unavailable):
            store.check()
        with pytest.raises(UnusableStore, match=f"no S3 server answers at {endpoint}") as caught:
            store.probe()
        assert caught.value.argument == "endpoint"


def test_tls_with_a_server_that_speaks_none_is_named(moto: S3Server):
    keys = {"access_key": moto.access_key, "secret_key": moto.secret_key}
    store = S3Store(endpoint=moto.endpoint, bucket="blobs", secure=True, region=REGION, **keys)

    with pytest.raises(UnusableStore) as caught:
        store.probe()
    assert caught.value.argument == "secure"


def test_a_bucket_that_cannot_be_called_so_is_named(moto: S3Server):
    with pytest.raises(UnusableStore) as caught:
        moto.store("_").probe()
    assert caught.value.argument == "bucket"


@pytest.mark.s3
def test_a_region_that_the_server_has_not_is_named(ceph: S3Server):  # moto has every one
    keys = {"access_key": ceph.access_key, "secret_key": ceph.secret_key}

    with pytest.raises(UnusableStore) as caught:
        S3Store(endpoint=ceph.endpoint, bucket="elsewhere", secure=False, region="nowhere", **keys).probe()
    assert caught.value.argument == "region"


@pytest.mark.s3
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_a_wrong_key_is_named(ceph: S3Server, wrong: str):  # moto lets everyone in
    with pytest.raises(UnusableStore) as caught:
        replace(ceph, **{wrong: "wrong"}).store("blobs").probe()
    assert caught.value.argument == wrong


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    store = FolderStore(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()

    with pytest.raises(UnusableStore, match="No such file") as caught:
        store.probe()
    assert caught.value.argument == "folder"


def test_a_missing_bucket_fails_the_check(s3_server: S3Server):
    with pytest.raises(Unavailable, match="no bucket"):
        s3_server.store("missing").check()
