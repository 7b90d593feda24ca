"""An S3 store behind a network that refuses, hangs, is slow, resets, truncates and flips bytes."""

import hashlib
import io
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from random import Random

import httpx
import pytest

from services.client.schemas import JobState
from services.storage.errors import CorruptBlob, Unavailable
from services.storage.s3_store import PART_BYTES, S3Store
from tests.contracts.s3_servers import S3Server
from tests.faults.conftest import MakeService
from tests.faults.control_plane import Periods
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for
from tests.faults.tcp_proxy import NONE, Fault, TcpProxy, tcp_proxy
from tests.serving import TOKEN

ROW_10 = pytest.mark.row(10, "a store that refuses, hangs, crawls, resets, truncates, flips: bounded, all detected")
HEADERS_BYTES = 1000  # of an answer, at most
CALL_SECONDS = 95.0  # of one request to the store, with its repetitions; what is sent has PART_BYTES at most
FAULTS = {
    "refuses": Fault(refuses=True),
    "resets": Fault(resets_at=HEADERS_BYTES // 10),
    "truncates": Fault(ends_at=HEADERS_BYTES // 10),
    "crawls": Fault(bytes_per_second=1e6),
    "hangs": Fault(hangs=True),
}


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[TcpProxy]:
    with tcp_proxy(moto.endpoint) as proxy:
        yield proxy


@pytest.fixture
def service(make_service: MakeService, moto: S3Server, proxy: TcpProxy) -> Service:
    """A service that reaches its bucket through the proxy; what the test reads there goes another way."""
    store, bucket = moto.new_store()
    keys = {"S3_ACCESS_KEY": moto.access_key, "S3_SECRET_KEY": moto.secret_key, "S3_SECURE": "false"}
    return make_service(Periods(first_backoff=0.1), store=store, S3_ENDPOINT=proxy.address, S3_BUCKET=bucket, **keys)


@pytest.fixture
def store(moto: S3Server, proxy: TcpProxy) -> S3Store:
    """An empty bucket behind the proxy."""
    store, _ = replace(moto, endpoint=proxy.address).new_store()
    return store


def a_blob(random: Random, size: int) -> tuple[str, bytes]:
    body = random.randbytes(size)
    return hashlib.sha256(body).hexdigest(), body


@ROW_10
def test_no_damage_on_the_way_from_the_store_passes(store: S3Store, proxy: TcpProxy, random: Random, record_property):
    sha256, body = a_blob(random, 300_000)
    store.put(sha256, io.BytesIO(body))
    detected = 0
    for _ in range(20):
        at = random.randrange(HEADERS_BYTES, len(body))
        for fault in (Fault(flips_at=at), Fault(ends_at=at), Fault(resets_at=at)):
            proxy.fault = fault
            with pytest.raises(CorruptBlob if fault.flips_at == at else Unavailable):
                store.open(sha256)
            detected += 1

    proxy.fault = NONE
    with store.open(sha256) as stored:
        assert stored.read() == body
    record_property("runs", detected)


@ROW_10
@pytest.mark.fault
@pytest.mark.timeout(600)
def test_the_largest_part_passes_at_a_megabyte_a_second(
    store: S3Store, proxy: TcpProxy, random: Random, record_property
):
    sha256, body = a_blob(random, PART_BYTES)
    proxy.fault = FAULTS["crawls"]
    started_at = time.monotonic()

    store.put(sha256, io.BytesIO(body))

    record_property("seconds to send 16 MiB at 1 MB/s", time.monotonic() - started_at)
    with store.open(sha256) as stored:
        assert stored.read() == body


@ROW_10
@pytest.mark.fault
@pytest.mark.timeout(600)
def test_every_call_to_a_store_that_hangs_ends(store: S3Store, proxy: TcpProxy, random: Random, record_property):
    sha256, body = a_blob(random, PART_BYTES)
    store.put(sha256, io.BytesIO(body))
    proxy.fault = FAULTS["hangs"]
    calls = (
        lambda: store.put(sha256, io.BytesIO(body)),
        lambda: store.open(sha256),
        lambda: store.find(sha256),
        lambda: store.delete(sha256),
        lambda: list(store.blobs()),
        store.check,
    )

    def seconds(call) -> float:
        started_at = time.monotonic()
        with pytest.raises(Unavailable):
            call()
        return time.monotonic() - started_at

    with ThreadPoolExecutor(len(calls)) as threads:
        *calling, checking = threads.map(seconds, calls)

    assert max(calling) < CALL_SECONDS
    record_property("seconds of a call that hangs", max(calling))
    record_property("seconds of a check that hangs", checking)


@ROW_10
@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_counts_on_while_its_store_fails(service: Service, proxy: TcpProxy, fault: str, record_property):
    service.start()
    service.plan(Plan(epochs=60, steps=5, step_seconds=0.05, state_bytes=2_000_000))
    job = service.submit()
    undisturbed = seconds_between(service, job, 50, 150)
    begun = len(service.events(job, "checkpoint"))

    proxy.fault = FAULTS[fault]
    disturbed = seconds_between(service, job, 160, 260)
    service.wait_for_steps(job, service.planned.total)
    kept = len(service.events(job, "checkpoint"))
    proxy.fault = NONE
    service.succeeded(job, 300)

    assert begun > 0
    assert kept < service.planned.epochs, "work did not wait for the store"
    record_property(f"% slower, {fault}", 100 * (disturbed / undisturbed - 1))
    check(service)


def seconds_between(service: Service, job: str, first: int, last: int) -> float:
    """How long a job takes from one number of steps to another."""
    service.wait_for_steps(job, first)
    started_at = time.monotonic()
    service.wait_for_steps(job, last)
    return time.monotonic() - started_at


@ROW_10
@pytest.mark.fault
@pytest.mark.timeout(600)
def test_readers_of_a_store_that_hangs_keep_nobody_else_waiting(service: Service, proxy: TcpProxy, record_property):
    service.start()
    done = service.succeeded(service.submit())
    service.plan(Plan(epochs=30, steps=5, step_seconds=0.02))
    job = service.submit()
    service.wait_for_steps(job, 5)
    address = f"{service.planes[0].url}/api/v1/artifacts/{done.artifacts[0].sha256}"

    def read() -> None:
        with suppress(httpx.TransportError):
            httpx.get(address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)

    proxy.fault = FAULTS["hangs"]
    with ThreadPoolExecutor(50) as readers:
        for _ in range(50):
            readers.submit(read)
        waited = wait_for(lambda: service.job(job).id == job, "another request is answered")
        record_property("seconds of a request beside 50 hung reads", waited)
        service.wait_for_steps(job, service.planned.total)
    proxy.fault = NONE

    service.succeeded(job, 300)
    check(service)


@ROW_10
@pytest.mark.fault
@pytest.mark.timeout(600)
def test_jobs_start_while_the_log_of_another_cannot_be_kept(
    service: Service, ray: RayStandIn, proxy: TcpProxy, record_property
):
    service.start()
    service.plan(Plan(epochs=60, steps=5, step_seconds=0.05))
    killed = service.submit()
    service.wait_for_steps(killed, 5)
    proxy.fault = FAULTS["hangs"]
    ray.signal(f"fasterseg-{killed}-1", signal.SIGKILL)
    wait_for(lambda: service.job(killed).epoch == 2, "it begins again")

    job = service.submit()
    waited = wait_for(lambda: service.job(job).state is not JobState.QUEUED, "another job starts", 60)
    proxy.fault = NONE

    record_property("seconds until a job starts while the store hangs", waited)
    service.succeeded(killed, 300)
    service.succeeded(job, 300)
    service.wait_for_logs()
    check(service)
