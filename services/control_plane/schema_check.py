"""`python -m services.control_plane check-schema`: what `alembic check` says, with the control plane's settings."""

import sys

from sqlalchemy.exc import OperationalError

from services.control_plane.existing_database import existing_database
from services.control_plane.settings import Settings
from services.storage.database import schema_differences
from services.storage.errors import Unavailable

CLEAN, DIFFERENT, NOT_COMPARED = 0, 1, 2


def check_schema(settings: Settings) -> int:
    """Prints what a migration would have to do; the exit status."""
    try:
        with existing_database(settings) as database:
            differences = schema_differences(database)
    except (Unavailable, OperationalError) as error:
        print(f"not compared: {error}", file=sys.stderr)
        return NOT_COMPARED
    print("\n".join(differences) or "schema and tables agree")
    return DIFFERENT if differences else CLEAN
