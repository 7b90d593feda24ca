"""What the control plane bears, on a PostgreSQL server that this program starts: submissions, a long queue, watchers.

    python -m benchmarks.control_plane_load

Submissions come from 1, 16 and 64 clients; the floor is the same rows written by a loop in this process, without HTTP.
A claim and the first page of the list are timed in a database with one page of queued jobs and in one with 10,000, in
turn. Watchers follow one event stream each while the jobs change; requests are timed before and beside them. The last
line is one JSON object.
"""

import argparse
import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from sqlalchemy import create_engine, text

from benchmarks.timing import percentiles, seconds_of, setting
from services.client.schemas import JobKind, JobSubmission, Preset
from services.control_plane.submission import submit_job
from services.storage.attempts import open_attempt
from services.storage.database import Database, migrate, open_database
from services.storage.jobs import claim_job
from services.storage.projects import narrow
from services.storage.tables import FIRST_PROJECT
from services.storage.views import page_of_jobs
from tests.postgresql import postgresql, postgresql_binaries
from tests.serving import TOKEN, control_plane

SUBMISSION = JobSubmission(kind=JobKind.PROFILE, preset=Preset.QUICK)
UNLIMITED = {"REQUESTS_PER_SECOND": "1e6", "REQUEST_BURST": "1000000"}
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
PAGE = 50  # jobs in the short queue, and on the list's first page


def main() -> None:
    """Prints a line for each measurement, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", type=int, default=2000, help="by each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=500, help="of a claim, of a list and of a request")
    parser.add_argument("--watchers", type=int, default=200)
    arguments = parser.parse_args()
    binaries = postgresql_binaries()
    if binaries is None:
        parser.error("PostgreSQL is not installed: initdb and pg_ctl were not found")
    figures: dict[str, object] = {}
    with postgresql(binaries, fsync=True) as server:
        figures["queue"] = _queue(server, arguments.queued, arguments.repeats)
        print(json.dumps(figures["queue"]), flush=True)
        url = _new_database(server, "served")
        with TemporaryDirectory() as folder, control_plane(Path(folder), DATABASE_URL=url, **UNLIMITED) as served:
            address = urlsplit(served.address).netloc
            floor = _per_second(lambda: _submit_all(open_database(url), arguments.submissions), arguments.submissions)
            figures["submissions"] = {"floor_per_second": floor}
            for clients in arguments.clients:
                measured = _submissions(address, clients, arguments.submissions)
                figures["submissions"] |= {f"{clients}_clients": measured}
                print(clients, json.dumps(measured), flush=True)
            figures["watchers"] = _watchers(address, arguments.watchers, arguments.repeats)
    print(json.dumps(figures | {"setting": setting()}))


# ---- a long queue ---------------------------------------------------------------------------------------------------


def _queue(server: str, queued: int, repeats: int) -> dict[str, dict[str, float]]:
    """A claim, with its attempt, and a page of the list, in a short and in a long queue."""
    short, long = (open_database(_new_database(server, name)) for name in ("short", "long"))
    _submit_all(short, PAGE)
    _submit_all(long, queued)
    figures = {}
    for name, work in (("claim", _claim), ("list", _list)):
        pairs = [(seconds_of(partial(work, short)), seconds_of(partial(work, long))) for _ in range(repeats)]
        few, many = (percentiles(list(times)) for times in zip(*pairs, strict=True))
        ratio = round(many["p99_ms"] / few["p99_ms"], 2)
        figures[name] = {f"{PAGE}_queued": few, f"{queued}_queued": many, "p99_ratio": ratio}
    return figures


def _claim(database: Database) -> None:
    """Claims a job and takes it back."""
    with database.writing() as session:
        job = claim_job(session)
        assert job is not None
        open_attempt(session, job, "benchmark")
        session.rollback()


def _list(database: Database) -> None:
    with database.reading() as session:
        narrow(session, FIRST_PROJECT)
        assert len(page_of_jobs(session, state=None, kind=None, before=None, limit=PAGE).items) == PAGE


def _submit_all(database: Database, count: int) -> None:
    """Writes the rows of submissions, each in a transaction of its own."""
    for _ in range(count):
        with database.writing.begin() as session:
            narrow(session, FIRST_PROJECT)
            submit_job(session, SUBMISSION, None)


# ---- submissions ----------------------------------------------------------------------------------------------------


def _submissions(address: str, clients: int, count: int) -> dict[str, float]:
    share = count // clients
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = list(pool.map(lambda _: _submit_in_turn(address, share), range(clients)))
    seconds = time.perf_counter() - started
    per_second = {"per_second": round(share * clients / seconds)}
    return per_second | percentiles([one for each in times for one in each])


def _submit_in_turn(address: str, count: int) -> list[float]:
    connection = http.client.HTTPConnection(address)
    body = SUBMISSION.model_dump_json(exclude_defaults=True)
    return [seconds_of(lambda: _ask(connection, "POST", "/api/v1/jobs", body)) for _ in range(count)]


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> bytes:
    connection.request(method, path, body, HEADERS)
    response = connection.getresponse()
    answer = response.read()
    assert response.status < 300, answer
    return answer


# ---- watchers -------------------------------------------------------------------------------------------------------


def _watchers(address: str, count: int, repeats: int) -> dict[str, object]:
    """How late watchers see an event, and what requests take beside them."""
    connection = http.client.HTTPConnection(address)
    body = SUBMISSION.model_dump_json(exclude_defaults=True)
    jobs = [str(json.loads(_ask(connection, "POST", "/api/v1/jobs", body))["id"]) for _ in range(count)]

    def requests() -> dict[str, float]:
        path, fresh = f"/api/v1/jobs/{jobs[0]}", http.client.HTTPConnection(address)  # an idle one would be closed
        return percentiles([seconds_of(lambda: _ask(fresh, "GET", path)) for _ in range(repeats)])

    alone = requests()
    seen: dict[str, float] = {}
    watching = threading.Semaphore(0)
    thread = threading.Thread(target=lambda: asyncio.run(_watch_all(address, jobs, seen, watching)))
    thread.start()
    for _ in jobs:
        watching.acquire()
    beside = requests()
    connection.close()  # it reconnects
    acknowledged = {}
    for job in jobs:
        _ask(connection, "POST", f"/api/v1/jobs/{job}/cancel")
        acknowledged[job] = time.perf_counter()
    thread.join()
    delays = [max(0.0, seen[job] - acknowledged[job]) for job in jobs]
    return {"watchers": count, "event": percentiles(delays), "request_alone": alone, "request_beside": beside}


async def _watch_all(address: str, jobs: list[str], seen: dict[str, float], watching: threading.Semaphore) -> None:
    await asyncio.gather(*(_watch(address, job, seen, watching) for job in jobs))


async def _watch(address: str, job: str, seen: dict[str, float], watching: threading.Semaphore) -> None:
    """Reads a job's stream to its end, and notes when the cancellation came."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /api/v1/jobs/{job}/events/stream HTTP/1.1\r\nHost: {address}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    )
    async for line in reader:
        if line.startswith(b"event: queued"):
            watching.release()
        elif line.startswith(b"event: cancelled"):
            seen[job] = time.perf_counter()
    writer.close()


# ---- what all of them need ------------------------------------------------------------------------------------------


def _new_database(server: str, name: str) -> str:
    """The URL of a migrated database on a server."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    url = server.rsplit("/", 1)[0] + f"/{name}"
    database = open_database(url)
    migrate(database)
    database.engine.dispose()
    return url


def _per_second(work: Callable[[], object], count: int) -> int:
    return round(count / seconds_of(work))


if __name__ == "__main__":
    main()
