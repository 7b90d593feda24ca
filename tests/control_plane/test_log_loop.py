"""What attempts print is kept while they run, and whole once they and their Ray jobs are over."""

import errno
import logging
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest

from services.control_plane.log_loop import copy_logs_until
from services.control_plane.logs import copy_logs
from services.control_plane.parts import Parts
from services.control_plane.ray_jobs import RayState
from services.storage.attempt_logs import COPY_BYTES_PER_SECOND, COPY_SECONDS, uncopied_logs
from services.storage.attempts import lose_attempt
from services.storage.blob_store import BlobStore
from services.storage.database import Database
from services.storage.folder_store import FolderStore
from services.storage.tables import AttemptRow
from tests.control_plane.builders import stops_after
from tests.control_plane.fakes import FakeRay
from tests.storage.builders import a_job, a_started_worker


def an_attempt(parts: Parts, ray: FakeRay, state: RayState, printed: str) -> str:
    """The id of an attempt, in a state of its Ray job."""
    a_job(parts.database)
    name = a_started_worker(parts.database).submission_id
    ray.say(name, state)
    ray.printed[name] = printed
    return name


def an_ended_attempt(parts: Parts, ray: FakeRay, state: RayState = RayState.FAILED, printed: str = "done\n") -> str:
    name = an_attempt(parts, ray, state, printed)
    lose(parts, name)
    return name


def a_copied_attempt(parts: Parts, ray: FakeRay, printed: str = "epoch 1\n") -> str:
    """The id of an attempt that runs, of whose output everything is kept so far."""
    name = an_attempt(parts, ray, RayState.RUNNING, printed)
    pass_time(parts.database, name, COPY_SECONDS)
    copy(parts, ray)
    return name


def lose(parts: Parts, attempt: str) -> None:
    with parts.database.writing.begin() as session:
        lose_attempt(session, attempt, "killed")


def copy(parts: Parts, ray: FakeRay, rounds: int = 1) -> None:
    copy_logs_until(stops_after(rounds), parts.database, parts.store, ray, seconds=3600)


def log_of(database: Database, store: BlobStore, attempt: str) -> str | None:
    with database.reading() as session:
        sha256 = session.get_one(AttemptRow, attempt).logs
    if sha256 is None:
        return None
    with store.open(sha256) as body:
        return body.read().decode()


def pass_time(database: Database, attempt: str, seconds: float) -> None:
    """Lets an attempt have begun, and its log have been copied, so much earlier."""
    with database.writing.begin() as session:
        row = session.get_one(AttemptRow, attempt)
        row.created_at -= timedelta(seconds=seconds)
        if row.logs_copied_at is not None:
            row.logs_copied_at -= timedelta(seconds=seconds)


def test_a_log_is_copied_whole_once_the_attempt_and_its_ray_job_are_over(parts: Parts, ray: FakeRay):
    live = an_attempt(parts, ray, RayState.FAILED, "not reported yet\n")
    alive = an_ended_attempt(parts, ray, RayState.RUNNING, "epoch 1\n")
    over = an_ended_attempt(parts, ray, RayState.SUCCEEDED, "done\n")

    copy(parts, ray)

    assert [log_of(parts.database, parts.store, name) for name in (live, alive, over)] == [None, None, "done\n"]


def test_what_a_running_attempt_prints_is_copied_once_a_minute(parts: Parts, ray: FakeRay):
    attempt = a_copied_attempt(parts, ray)
    ray.printed[attempt] += "epoch 2\n"
    copy(parts, ray)
    early = log_of(parts.database, parts.store, attempt)
    pass_time(parts.database, attempt, COPY_SECONDS)

    copy(parts, ray)

    assert [early, log_of(parts.database, parts.store, attempt)] == ["epoch 1\n", "epoch 1\nepoch 2\n"]


def test_a_long_log_is_copied_less_often_while_it_grows(parts: Parts, ray: FakeRay):
    seconds = 5 * COPY_SECONDS
    long = int(seconds * COPY_BYTES_PER_SECOND) * "x"
    attempt = a_copied_attempt(parts, ray, long)
    ray.printed[attempt] += "\n"
    pass_time(parts.database, attempt, seconds - 1)
    copy(parts, ray)
    early = log_of(parts.database, parts.store, attempt)
    pass_time(parts.database, attempt, 1)

    copy(parts, ray)

    assert [early, log_of(parts.database, parts.store, attempt)] == [long, long + "\n"]


def test_the_last_lines_follow_a_copy_that_was_made_before_the_end(parts: Parts, ray: FakeRay):
    attempt = a_copied_attempt(parts, ray)
    lose(parts, attempt)
    ray.say(attempt, RayState.FAILED)
    ray.printed[attempt] += "the end\n"

    copy(parts, ray)

    assert log_of(parts.database, parts.store, attempt) == "epoch 1\nthe end\n"
    ray.printed[attempt] = "nothing is asked of it any more\n"
    copy(parts, ray)
    assert log_of(parts.database, parts.store, attempt) == "epoch 1\nthe end\n"


def test_a_copy_of_an_attempt_that_ends_meanwhile_is_not_taken_for_the_whole(parts: Parts, ray: FakeRay):
    attempt = an_attempt(parts, ray, RayState.RUNNING, "epoch 1\n")
    pass_time(parts.database, attempt, COPY_SECONDS)
    with parts.database.reading() as session:
        (log,) = uncopied_logs(session)
    lose(parts, attempt)

    copy_logs(parts.database, parts.store, ray, log)

    assert log_of(parts.database, parts.store, attempt) is None
    ray.say(attempt, RayState.FAILED)
    ray.printed[attempt] += "the end\n"
    copy(parts, ray)
    assert log_of(parts.database, parts.store, attempt) == "epoch 1\nthe end\n"


def test_a_log_that_ray_has_lost_keeps_no_other_waiting(parts: Parts, ray: FakeRay):
    lost, kept = an_ended_attempt(parts, ray), an_ended_attempt(parts, ray)
    del ray.jobs[lost]

    copy(parts, ray)

    assert [log_of(parts.database, parts.store, name) for name in (lost, kept)] == [None, "done\n"]


def test_a_log_that_could_not_be_copied_for_a_day_is_given_up(parts: Parts, ray: FakeRay):
    attempt = an_ended_attempt(parts, ray)
    with parts.database.writing.begin() as session:
        session.get_one(AttemptRow, attempt).finished_at -= timedelta(days=1)

    copy(parts, ray)

    assert log_of(parts.database, parts.store, attempt) is None


def test_a_log_that_ray_does_not_give_keeps_no_other_waiting_and_is_asked_for_again_later(
    parts: Parts, ray: FakeRay, caplog: pytest.LogCaptureFixture
):
    withheld, kept = an_ended_attempt(parts, ray), an_ended_attempt(parts, ray)
    ray.withheld.add(withheld)

    with caplog.at_level(logging.WARNING):
        copy(parts, ray, rounds=3)

    assert [log_of(parts.database, parts.store, name) for name in (withheld, kept)] == [None, "done\n"]
    assert [record.message for record in caplog.records] == ["log was not copied"]
    ray.withheld.clear()
    copy(parts, ray)
    assert log_of(parts.database, parts.store, withheld) == "done\n"


def test_what_was_copied_stays_where_ray_has_lost_the_file(parts: Parts, ray: FakeRay):
    attempt = a_copied_attempt(parts, ray)
    lose(parts, attempt)
    ray.say(attempt, RayState.FAILED)
    ray.printed[attempt] = ""

    copy(parts, ray)

    assert log_of(parts.database, parts.store, attempt) == "epoch 1\n"


def test_a_replica_that_was_slow_takes_back_no_copy_of_another(parts: Parts, ray: FakeRay):
    attempt = an_attempt(parts, ray, RayState.RUNNING, "epoch 1\n")
    pass_time(parts.database, attempt, COPY_SECONDS)
    with parts.database.reading() as session:
        (log,) = uncopied_logs(session)
    ray.printed[attempt] += "epoch 2\n"
    copy(parts, ray)
    ray.printed[attempt] = "epoch 1\n"

    copy_logs(parts.database, parts.store, ray, log)

    assert log_of(parts.database, parts.store, attempt) == "epoch 1\nepoch 2\n"


def test_what_has_ended_is_copied_before_what_runs(parts: Parts, ray: FakeRay):
    running = an_attempt(parts, ray, RayState.RUNNING, "epoch 1\n")
    pass_time(parts.database, running, COPY_SECONDS)
    ended = an_ended_attempt(parts, ray)

    with parts.database.reading() as session:
        assert [log.submission_id for log in uncopied_logs(session)] == [ended, running]


def test_logs_are_copied_after_an_outage_that_is_logged_once(
    parts: Parts, ray: FakeRay, caplog: pytest.LogCaptureFixture
):
    attempt = an_ended_attempt(parts, ray)
    ray.is_away = True
    with caplog.at_level(logging.WARNING):
        copy(parts, ray, rounds=3)
    ray.is_away = False

    copy(parts, ray)

    assert [(record.message, record.error) for record in caplog.records] == [
        ("logs were not copied", "Ray does not answer")
    ]
    assert log_of(parts.database, parts.store, attempt) == "done\n"


class FillingStore(FolderStore):
    """A folder with room for small logs."""

    def put(self, sha256: str, body: IO[bytes]) -> int:
        if len(body.read()) > 10:
            raise OSError(errno.ENOSPC, "no space left")
        body.seek(0)
        return super().put(sha256, body)


def test_a_log_for_which_there_is_no_room_keeps_no_other_waiting(parts: Parts, ray: FakeRay, tmp_path: Path):
    large, small = an_ended_attempt(parts, ray, printed="much was done\n"), an_ended_attempt(parts, ray)
    full = FillingStore(tmp_path / "full")
    copy_logs_until(stops_after(1), parts.database, full, ray, seconds=3600)
    assert [log_of(parts.database, full, name) for name in (large, small)] == [None, "done\n"]

    copy(parts, ray)

    assert log_of(parts.database, parts.store, large) == "much was done\n"
