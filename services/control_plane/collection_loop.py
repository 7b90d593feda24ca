"""Removes from the store, again and again, what no row names."""

import logging
import threading
from dataclasses import asdict
from datetime import timedelta

from services.storage.blob_store import BlobStore
from services.storage.collection import collect
from services.storage.database import Database

PAUSE_SECONDS = 600.0

_log = logging.getLogger(__name__)


def collect_until(stop: threading.Event, database: Database, store: BlobStore, min_age: timedelta) -> None:
    """Collects until `stop` is set. Any number of replicas may. A pass that fails is logged: the next tries again."""
    while not stop.wait(PAUSE_SECONDS):
        try:
            collected = collect(database, store, min_age)
        except Exception as error:  # noqa: BLE001  # whatever it was, the next pass must come
            _log.warning("blobs were not collected", extra={"error": str(error)})
        else:
            if collected.blobs or collected.refused:
                _log.info("collected", extra=asdict(collected))
