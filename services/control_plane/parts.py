"""What a control plane is made of, opened once."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from services.control_plane.identity_provider import IdentityProvider
from services.control_plane.ray_jobs import RayJobs
from services.control_plane.settings import Settings
from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.s3_links import S3Links

if TYPE_CHECKING:
    from services.telemetry.traces import Traces


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The database, the blob store, Ray, the profiler's Serve app; identity provider and traces where there are any.

    Users, or workers, whose links are signed here are sent to the store for blobs; others get them from here.
    """

    settings: Settings
    database: Database
    store: BlobStore
    user_links: S3Links | None
    worker_links: S3Links | None
    ray: RayJobs
    profiler: httpx.Client
    identity_provider: IdentityProvider | None
    traces: "Traces | None" = None
    runnable: threading.Event = field(default_factory=threading.Event)  # set where a job may have become so
