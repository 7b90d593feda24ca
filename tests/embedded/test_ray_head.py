import stat
from pathlib import Path

from services.embedded.ray_head import environment, make_token
from services.embedded.settings import Settings


def test_the_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_token(tmp_path / "token")

    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_a_token_is_kept(tmp_path: Path) -> None:
    make_token(tmp_path / "token")
    token = (tmp_path / "token").read_text()

    make_token(tmp_path / "token")

    assert (tmp_path / "token").read_text() == token


def test_workers_write_event_files_into_the_state_folder(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, port=1, dashboard_port=2, profiler_port=3, data_root=None, cpus=1)

    assert environment(settings)["FASTERSEG_TENSORBOARD_DIR"] == str(tmp_path / "tensorboard")
