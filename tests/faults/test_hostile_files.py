"""Files that would expand, run or lead elsewhere: refused by whatever reads them."""

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from fasterseg_core.datasets.camvid import camvid_720
from fasterseg_core.datasets.segmentation import DatasetError, read_image
from fasterseg_core.published import read_relaxation
from services.storage.errors import CorruptBlob
from services.storage.folder_store import FolderStore
from tests.rows import HOSTILE

BODY = b"weights"
SHA256 = hashlib.sha256(BODY).hexdigest()


@HOSTILE
def test_a_published_search_that_expands_is_refused_before_it_is_read(tmp_path: Path):
    plain, bomb = tmp_path / "plain.pt", tmp_path / "arch_1.pt"
    torch.save({"alpha_1_0": torch.zeros(4 << 20)}, plain)
    with zipfile.ZipFile(plain) as stored, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry), compresslevel=1)
    assert bomb.stat().st_size < plain.stat().st_size / 100

    with pytest.raises(ValueError, match=r"arch_1\.pt is refused: it is compressed"):
        read_relaxation(bomb)


@HOSTILE
def test_an_image_that_expands_is_refused_before_it_is_decoded(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 11 GB of pixels
    data = zlib.compress(bytes(1_000_000))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data))

    with pytest.raises(Image.DecompressionBombError):
        read_image(tmp_path / "bomb.png")


@HOSTILE
@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "701_StillsRaw_full/../../secret", "..%2fsecret"])
def test_names_of_a_split_lead_nowhere_else(tmp_path: Path, name: str):
    root = tmp_path / "data" / "camvid"
    root.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "secret.png")
    (root / "train.txt").write_text(f"{name}\n")

    with pytest.raises(DatasetError, match=rf"{root}/701_StillsRaw_full/[^/]+\.png is missing"):
        camvid_720(root, "train")


@HOSTILE
def test_a_link_in_the_store_is_neither_served_nor_written_through(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"a secret")
    store = FolderStore(tmp_path / "blobs")
    path = tmp_path / "blobs" / SHA256[:2] / SHA256
    path.parent.mkdir()
    path.symlink_to(outside)

    with pytest.raises(CorruptBlob):
        store.open(SHA256)
    store.put(SHA256, io.BytesIO(BODY))
    with store.open(SHA256) as body:
        assert body.read() == BODY
    path.unlink()
    path.symlink_to(outside)
    store.delete(SHA256)

    assert outside.read_bytes() == b"a secret"
