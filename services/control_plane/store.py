"""The blob store that the settings name, tried before anything relies on it, and links to its blobs."""

from datetime import timedelta

from services.control_plane.settings import Settings
from services.storage.blob_store import BlobStore, UnusableStore
from services.storage.folder_store import FolderStore
from services.storage.s3_links import S3Links
from services.storage.s3_store import S3Store


def open_store(settings: Settings) -> BlobStore:
    """The store, which is not spoken to yet."""
    if settings.s3_endpoint is None:
        return FolderStore(settings.state_folder / "blobs")
    return S3Store(
        endpoint=settings.s3_endpoint,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=settings.s3_secure,
        region=settings.s3_region,
    )


def open_links(settings: Settings, address: str | None) -> S3Links | None:
    """Links for who reaches the S3 server under this address; none without one."""
    if address is None:
        return None
    return S3Links(
        address=address,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        lifetime=timedelta(minutes=settings.s3_link_minutes),
    )


def require_usable(store: BlobStore) -> None:
    """Ends the process, with the name of the setting to look at, where the store cannot do what it must."""
    try:
        store.probe()
    except UnusableStore as error:
        setting = "STATE_FOLDER" if isinstance(store, FolderStore) else f"S3_{error.argument.upper()}"
        raise SystemExit(f"FASTERSEG_{setting}: {error}") from error
