"""`python -m services.control_plane fsck`: compares rows and store, with the control plane's settings."""

import sys

from sqlalchemy.exc import OperationalError

from services.control_plane.existing_database import existing_database
from services.control_plane.settings import Settings
from services.control_plane.store import open_store
from services.storage.errors import Unavailable
from services.storage.fsck import find_faults

CLEAN, FAULTY, NOT_COMPARED = 0, 1, 2


def fsck(settings: Settings) -> int:
    """Prints each fault as it is found; the exit status."""
    count = 0
    try:
        with existing_database(settings) as database:
            for fault in find_faults(database, open_store(settings)):
                print(fault, flush=True)
                count += 1
    except (Unavailable, OperationalError) as error:
        print(f"not compared: {error}", file=sys.stderr)
        return NOT_COMPARED
    print(f"faults: {count}" if count else "rows and store agree")
    return FAULTY if count else CLEAN
