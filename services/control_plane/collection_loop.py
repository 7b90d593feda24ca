"""Removes from the store, again and again, what no row names and what nobody finished."""

import logging
import threading
from dataclasses import asdict
from datetime import timedelta

from services.storage.blob_store import BlobStore
from services.storage.collection import abandon, adopt, collect
from services.storage.database import Database, said

PAUSE_SECONDS = 600.0

_log = logging.getLogger(__name__)


def collect_until(stop: threading.Event, database: Database, store: BlobStore, min_age: timedelta) -> None:
    """Collects until `stop` is set. Any number of replicas may. A pass that fails is logged: the next tries again."""
    while not stop.wait(PAUSE_SECONDS):
        try:
            _collect_once(database, store, min_age)
        except Exception as error:  # noqa: BLE001  # whatever it was, the next pass must come
            _log.warning("blobs were not collected", extra={"error": said(error)})


def _collect_once(database: Database, store: BlobStore, min_age: timedelta) -> None:
    collected = collect(database, store, min_age)
    if collected.blobs or collected.refused:
        _log.info("collected", extra=asdict(collected))
    if abandoned := abandon(database, store, min_age):
        _log.info("removed what writers left that never ended", extra={"writers": abandoned})
    if adopted := adopt(database, store):
        _log.warning("blobs without a row will be collected", extra={"blobs": adopted, "after": str(min_age)})
