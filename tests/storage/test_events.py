"""How many events jobs have, and of which kinds."""

import re
from pathlib import Path

from services import workers
from services.client.attempt_schemas import USAGE
from services.client.schemas import Event
from services.storage.database import Database
from services.storage.events import SERVICE_KINDS, count_events
from services.storage.jobs import request_cancel
from tests.storage.builders import a_job


def test_events_of_many_jobs_are_counted_together(database: Database):
    queued, cancelled, _ = (a_job(database) for _ in range(3))
    with database.writing.begin() as session:
        request_cancel(session, cancelled)  # queued, cancel_requested, cancelled

    with database.reading() as session:
        assert count_events(session, [queued, cancelled, "aaaaaaaaaaaa"]) == {queued: 1, cancelled: 3}
        assert count_events(session, []) == {}


def test_the_contract_names_every_kind():
    sources = "".join(path.read_text() for path in Path(workers.__path__[0]).glob("*.py"))
    told_by_workers = {*re.findall(r'\.event\("(\w+)"', sources), USAGE}
    named = str(Event.__doc__).partition("Kinds:")[2]

    assert set(re.findall(r"\w+", named)) == SERVICE_KINDS | told_by_workers
