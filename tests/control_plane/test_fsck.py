"""What fsck prints, and its exit status."""

import pytest

from services.control_plane.fsck import CLEAN, FAULTY, fsck
from services.control_plane.parts import Parts


def test_faults_are_named_and_told_by_the_status(parts: Parts, capsys: pytest.CaptureFixture[str]):
    lost = "ab" * 32

    assert fsck(parts.settings) == CLEAN
    assert capsys.readouterr().out == "rows and store agree\n"

    path = parts.settings.state_folder / "blobs" / lost[:2] / lost
    path.parent.mkdir()
    path.write_bytes(b"bytes")
    assert fsck(parts.settings) == FAULTY
    fault = f"unknown {lost}: 5 bytes without a row, which collection will remove"
    assert capsys.readouterr().out == f"{fault}\nfaults: 1\n"
