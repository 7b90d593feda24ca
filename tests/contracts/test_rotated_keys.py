"""The store's keys are changed as docs/operations.md says, and nothing that is stored is lost."""

import subprocess
from pathlib import Path

import pytest

from services.client.client import FasterSegClient
from services.storage.database import open_database
from tests.contracts.ceph_gateway import CephGateway
from tests.serving import COMMAND, TOKEN, control_plane, environment
from tests.storage.builders import BLOB, a_trained_job

pytestmark = pytest.mark.s3


def test_a_restart_with_new_keys_reads_what_was_stored_and_the_old_ones_are_refused(ceph: CephGateway, tmp_path: Path):
    store, bucket = ceph.new_store()
    common = {"S3_ENDPOINT": ceph.endpoint, "S3_BUCKET": bucket, "S3_SECURE": "false"}
    old = {**common, "S3_ACCESS_KEY": "old", "S3_SECRET_KEY": "a secret to be replaced"}
    new = {**common, "S3_ACCESS_KEY": "new", "S3_SECRET_KEY": "a secret that replaces it"}

    with ceph.other_keys(new["S3_ACCESS_KEY"], new["S3_SECRET_KEY"]):
        with ceph.other_keys(old["S3_ACCESS_KEY"], old["S3_SECRET_KEY"]):
            with control_plane(tmp_path, **old) as served:
                database = open_database(f"sqlite:///{tmp_path / 'fasterseg.db'}")
                job = a_trained_job(database, store)
                assert fetched(served.address, job, tmp_path / "old") == BLOB
            with control_plane(tmp_path, **new) as served:
                assert fetched(served.address, job, tmp_path / "both") == BLOB
        with control_plane(tmp_path, **new) as served:
            assert fetched(served.address, job, tmp_path / "new") == BLOB
            refused = subprocess.run(COMMAND, env=environment(tmp_path, **old), capture_output=True, text=True)
    database.engine.dispose()

    assert refused.returncode == 1
    assert "FASTERSEG_S3_ACCESS_KEY" in refused.stderr.splitlines()[-1]


def fetched(address: str, job: str, folder: Path) -> bytes:
    """What a job left, as a user gets it."""
    with FasterSegClient(address, token=TOKEN) as client:
        (path,) = client.fetch(client.job(job), folder)
    return path.read_bytes()
