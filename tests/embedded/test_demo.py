from pathlib import Path

from typer.testing import CliRunner

from services.embedded.demo import DATA_SETS, app


def test_a_folder_that_is_no_data_sets_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()

    result = CliRunner().invoke(app, ["--data", str(folder), "--state", str(tmp_path / "state")])

    assert result.exit_code == 2
    assert "pictures" in result.output
    assert DATA_SETS[0] in result.output
    assert not (tmp_path / "state").exists()
