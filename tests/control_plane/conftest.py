"""A control plane on a SQLite file and a folder, with Ray and the profiler faked."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from services.control_plane.app import create_app
from services.control_plane.parts import Parts
from services.control_plane.settings import Settings
from services.storage.database import Database, migrate, open_database
from services.storage.folder_store import FolderStore
from services.storage.tokens import keep_first_token
from tests.clock import FakeClock
from tests.control_plane.fakes import FakeProfiler, FakeRay
from tests.postgresql import postgresql, postgresql_binaries

FIRST_TOKEN = "the token of the one who set the service up"
PROFILER_TOKEN = "what the profiler and the control plane share"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "fasterseg.db"
    database = open_database(f"sqlite:///{path}")
    migrate(database)
    database.engine.dispose()
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def profiler() -> FakeProfiler:
    return FakeProfiler()


@pytest.fixture
def parts(tmp_path: Path, migrated_file: Path, ray: FakeRay, profiler: FakeProfiler) -> Iterator[Parts]:
    settings = Settings(
        state_folder=tmp_path, max_document_bytes=100_000, max_blob_bytes=1_000_000, profiler_token=PROFILER_TOKEN
    )
    shutil.copy(migrated_file, tmp_path / "fasterseg.db")
    database = open_database(settings.database)
    with httpx.Client(base_url="http://profiler", transport=httpx.MockTransport(profiler)) as client:
        yield Parts(
            settings=settings,
            database=database,
            store=FolderStore(tmp_path / "blobs"),
            user_links=None,
            worker_links=None,
            ray=ray,
            profiler=client,
            identity_provider=None,
        )
    database.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Parts]:
    """The parts with a database of either kind."""
    if request.param == "sqlite":
        yield parts
        return
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: initdb and pg_ctl were not found")
    with postgresql(binaries, fsync=False) as url:
        database = open_database(url)
        migrate(database)
        yield replace(parts, database=database)
        database.engine.dispose()


@pytest.fixture
def database(parts: Parts) -> Database:
    return parts.database


@pytest.fixture
def anonymous(parts: Parts) -> Iterator[TestClient]:
    """Requests without a token."""
    with TestClient(create_app(parts), base_url="http://test/api/v1/", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def api(anonymous: TestClient, database: Database) -> TestClient:
    """Requests with the first token, which may do everything in its project."""
    with database.writing.begin() as session:
        keep_first_token(session, FIRST_TOKEN)
    anonymous.headers["Authorization"] = f"Bearer {FIRST_TOKEN}"
    return anonymous
