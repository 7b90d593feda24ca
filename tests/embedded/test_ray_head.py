import stat
from pathlib import Path

from services.embedded.ray_head import make_token


def test_the_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_token(tmp_path / "token")

    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_a_token_is_kept(tmp_path: Path) -> None:
    make_token(tmp_path / "token")
    token = (tmp_path / "token").read_text()

    make_token(tmp_path / "token")

    assert (tmp_path / "token").read_text() == token
