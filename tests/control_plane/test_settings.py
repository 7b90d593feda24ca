"""Settings and what follows from them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.control_plane.settings import Settings

TOKEN = "what the profiler and it share"


def test_the_defaults_are_embedded(tmp_path: Path):
    settings = Settings(state_folder=tmp_path, profiler_token=TOKEN)

    assert settings.database == f"sqlite:///{tmp_path / 'fasterseg.db'}"
    assert settings.worker_url == "http://127.0.0.1:8000"
    assert settings.s3_endpoint is None


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FASTERSEG_DATABASE_URL", "postgresql+psycopg2://host/name")
    monkeypatch.setenv("FASTERSEG_PUBLIC_URL", "http://control-plane:8000")

    monkeypatch.setenv("FASTERSEG_PROFILER_TOKEN", TOKEN)

    settings = Settings()

    assert settings.database == "postgresql+psycopg2://host/name"
    assert settings.worker_url == "http://control-plane:8000"


@pytest.mark.parametrize("instance", ["", "a-b", "Upper", "x" * 31])
def test_an_instance_must_be_a_plain_word(instance: str):
    with pytest.raises(ValidationError):
        Settings(instance=instance, profiler_token=TOKEN)


@pytest.mark.parametrize("token", [{}, {"profiler_token": "short"}])
def test_the_profilers_token_must_be_set_and_long(token: dict[str, str]):
    with pytest.raises(ValidationError, match="profiler_token"):
        Settings(**token)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"oidc_issuer": "http://login.example", "oidc_audience": "fasterseg"}, "oidc_issuer"),
        ({"oidc_issuer": "https://login.example"}, "oidc_audience must be set"),
        ({"oidc_scopes": {"everyone": "everything"}}, "oidc_scopes"),
        ({"oidc_scopes": {}}, "oidc_scopes"),
    ],
)
def test_an_identity_provider_is_named_whole(values: dict[str, object], field: str):
    with pytest.raises(ValidationError, match=field):
        Settings(profiler_token=TOKEN, **values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"s3_public_url": "https://blobs.example"}, "s3_endpoint must be set"),
        ({"s3_endpoint": "s3:9000", "s3_public_url": "blobs.example"}, "s3_public_url"),
        ({"s3_endpoint": "s3:9000", "s3_public_url": "https://example/blobs"}, "s3_public_url"),
        ({"s3_endpoint": "s3:9000", "s3_worker_url": "https://key:secret@example"}, "s3_worker_url"),
        ({"s3_link_minutes": 7 * 24 * 60 + 1}, "s3_link_minutes"),
        ({"s3_region": "Europe"}, "s3_region"),
    ],
)
def test_links_that_cannot_be_are_refused(values: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        Settings(profiler_token=TOKEN, **values)


def test_an_empty_address_is_none():
    assert Settings(profiler_token=TOKEN, s3_public_url="", s3_worker_url="").s3_public_url is None
