"""The database of the settings, for commands that change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.control_plane.settings import Settings
from services.storage.database import Database, open_database, require_migrated
from services.storage.errors import Unavailable


@contextmanager
def existing_database(settings: Settings) -> Iterator[Database]:
    """The database, closed in the end; Unavailable where it is not there, or of another version."""
    if settings.database_url is None and not settings.embedded_database.exists():
        raise Unavailable(f"FASTERSEG_STATE_FOLDER: there is no {settings.embedded_database}")
    database = open_database(settings.database)
    try:
        require_migrated(database)
        yield database
    finally:
        database.engine.dispose()
