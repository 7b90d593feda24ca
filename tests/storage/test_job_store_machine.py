"""The job store under random sequences of everything that dispatchers, workers and users do."""

import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from services.client.schemas import AttemptSuccess, FailureClass, Heartbeat, JobKind, JobState, Reason
from services.storage.attempts import lose_attempt
from services.storage.database import Database, open_database
from services.storage.errors import Conflict, LeaseLost
from services.storage.jobs import claim_job, find_job, request_cancel, request_pause, resume_job
from services.storage.tables import AttemptRow, EventRow, JobRow
from services.storage.worker_writes import acknowledge_stop, fail, heartbeat, succeed
from tests.storage.builders import Worker, a_job, a_started_worker, end_backoff
from tests.storage.conftest import empty


def _hurry(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.cursor().execute("PRAGMA synchronous = OFF")  # nothing here outlives the test


class JobStoreMachine(RuleBasedStateMachine):
    """Workers never forget: an old one goes on writing after its attempt was lost."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.jobs: list[str] = []
        self.workers: list[Worker] = []
        self.ended: set[str] = set()
        self.final: dict[str, JobState] = {}
        self.epochs: dict[str, int] = {}

    def teardown(self) -> None:
        self.database.engine.dispose()

    @rule(parent=st.integers(0, 9), priority=st.integers(-1, 1))
    def submit(self, parent: int, priority: int) -> None:
        after = [self.jobs[parent]] if parent < len(self.jobs) else []
        self.jobs.append(a_job(self.database, JobKind.EVALUATE, after=after, priority=priority))

    @rule()
    def start(self) -> None:
        with self.database.writing.begin() as session:
            end_backoff(session)
        with self.database.writing() as session:
            runnable = claim_job(session) is not None  # rolled back: the session is closed without a commit
        if runnable:
            worker = a_started_worker(self.database)
            self.workers.append(worker)
            with self.database.reading() as session:
                assert find_job(session, worker.assignment.job).paused_at is None, "a paused job does not start"

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        with self.database.writing.begin() as session:
            lose_attempt(session, worker.submission_id, "killed")
        self.ended.add(worker.submission_id)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), action=st.sampled_from(["heartbeat", "succeed", "fail", "stopped"]))
    def write(self, data: st.DataObject, action: str) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        name, token = worker.submission_id, worker.token
        accepted = True
        try:
            with self.database.writing.begin() as session:
                match action:
                    case "heartbeat":
                        heartbeat(session, name, token, Heartbeat())
                    case "succeed":
                        succeed(session, name, token, AttemptSuccess(result={"by": name}))
                    case "fail":
                        fail(session, name, token, Reason(failure=FailureClass.OUT_OF_MEMORY, message=name))
                    case "stopped":
                        acknowledge_stop(session, name, token)
        except LeaseLost:
            accepted = False
        assert accepted == (name not in self.ended), "an attempt that has ended writes nothing, a live one writes"
        if action != "heartbeat":
            self.ended.add(name)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), request=st.sampled_from([request_cancel, request_pause, resume_job]))
    def ask(self, data: st.DataObject, request: Callable[[Session, str], JobRow]) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        try:
            with self.database.writing.begin() as session:
                request(session, job)
        except Conflict:
            assert self.final[job] is not JobState.CANCELLED or request is not request_cancel

    @invariant()
    def the_rows_keep_their_promises(self) -> None:
        with self.database.reading() as session:
            jobs = list(session.scalars(select(JobRow)))
            live = [row.job for row in session.scalars(select(AttemptRow).where(AttemptRow.finished_at.is_(None)))]
            events = list(session.scalars(select(EventRow).order_by(EventRow.job, EventRow.sequence)))
        assert sorted(live) == sorted(job.id for job in jobs if job.state is JobState.RUNNING)
        for job in jobs:
            assert job.epoch >= self.epochs.get(job.id, 0)
            self.epochs[job.id] = job.epoch
            assert self.final.get(job.id, job.state) is job.state, "a final state never changes"
            if job.state.is_final:
                self.final[job.id] = job.state
            history = [event for event in events if event.job == job.id]
            assert [event.sequence for event in history] == list(range(1, job.events + 1))
            assert sum(event.kind in ("succeeded", "failed", "cancelled") for event in history) == job.state.is_final
            if job.state is JobState.SUCCEEDED:
                assert job.result == {"by": f"test-{job.id}-{job.epoch}"}, "only the latest attempt's result counts"


def test_the_job_store_keeps_its_promises_on_sqlite(migrated_sqlite: Path, tmp_path: Path):
    def a_machine() -> JobStoreMachine:
        path = shutil.copy(migrated_sqlite, tmp_path / "run.db")
        database = open_database(f"sqlite:///{path}")
        event.listen(database.engine, "connect", _hurry)
        return JobStoreMachine(database)

    run_state_machine_as_test(a_machine, settings=settings(max_examples=20, stateful_step_count=25, deadline=None))


def test_the_job_store_keeps_its_promises_on_postgresql(postgresql_url: str):
    def a_machine() -> JobStoreMachine:
        empty(postgresql_url)
        return JobStoreMachine(open_database(postgresql_url))

    run_state_machine_as_test(a_machine, settings=settings(max_examples=5, stateful_step_count=25, deadline=None))
