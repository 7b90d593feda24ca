"""Settings and what follows from them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.control_plane.settings import Settings


def test_the_defaults_are_embedded(tmp_path: Path):
    settings = Settings(state_folder=tmp_path)

    assert settings.database == f"sqlite:///{tmp_path / 'fasterseg.db'}"
    assert settings.worker_url == "http://127.0.0.1:8000"
    assert settings.s3_endpoint is None


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FASTERSEG_DATABASE_URL", "postgresql+psycopg2://host/name")
    monkeypatch.setenv("FASTERSEG_PUBLIC_URL", "http://control-plane:8000")

    settings = Settings()

    assert settings.database == "postgresql+psycopg2://host/name"
    assert settings.worker_url == "http://control-plane:8000"


@pytest.mark.parametrize("instance", ["", "a-b", "Upper", "x" * 31])
def test_an_instance_must_be_a_plain_word(instance: str):
    with pytest.raises(ValidationError):
        Settings(instance=instance)
