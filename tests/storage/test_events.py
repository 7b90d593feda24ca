"""How many events jobs have."""

from services.storage.database import Database
from services.storage.events import count_events
from services.storage.jobs import request_cancel
from tests.storage.builders import a_job


def test_events_of_many_jobs_are_counted_together(database: Database):
    queued, cancelled, _ = (a_job(database) for _ in range(3))
    with database.writing.begin() as session:
        request_cancel(session, cancelled)  # queued, cancel_requested, cancelled

    with database.reading() as session:
        assert count_events(session, [queued, cancelled, "aaaaaaaaaaaa"]) == {queued: 1, cancelled: 3}
        assert count_events(session, []) == {}
