"""The job store under random sequences of everything that dispatchers, workers and users do."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from services.client.attempt_schemas import AttemptSuccess, Heartbeat
from services.client.schemas import FailureClass, InvalidField, JobKind, JobState, Limits, ProjectLimits, Reason
from services.storage.attempts import lose_attempt, stop_where_projects_have_no_hours_left
from services.storage.database import Database, database_now, open_database
from services.storage.errors import Conflict, LeaseLost
from services.storage.jobs import (
    claim_job,
    find_job,
    pause_where_limits_are_reached,
    request_cancel,
    request_pause,
    resume_job,
)
from services.storage.limits import reached_limits, used_hours, used_up_projects
from services.storage.projects import limit_project
from services.storage.tables import FIRST_PROJECT, AttemptRow, EventRow, JobRow
from services.storage.worker_writes import acknowledge_stop, fail, heartbeat, succeed
from tests.storage.builders import Worker, a_job, a_started_worker, end_backoff, pass_deadline, work_for
from tests.storage.conftest import empty

LATER = datetime(2999, 1, 1, tzinfo=UTC)


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
        self.used: dict[str, float] = {}

    def teardown(self) -> None:
        self.database.engine.dispose()

    def live(self, session: Session) -> list[AttemptRow]:
        return list(session.scalars(select(AttemptRow).where(AttemptRow.finished_at.is_(None))))

    def limits(self, session: Session, job: JobRow) -> tuple[InvalidField, ...]:
        return reached_limits(job, used_hours(session, [job.id])[job.id], database_now(session))

    @rule(parent=st.integers(0, 9), priority=st.integers(-1, 1), max_hours=st.sampled_from([None, 1.0]))
    def submit(self, parent: int, priority: int, max_hours: float | None) -> None:
        after = [self.jobs[parent]] if parent < len(self.jobs) else []
        self.jobs.append(a_job(self.database, JobKind.EVALUATE, after=after, priority=priority, max_hours=max_hours))

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
                job = find_job(session, worker.assignment.job)
                assert job.paused_at is None, "a paused job does not start"
                assert not self.limits(session, job), "a job that has reached a limit does not start"
                assert not used_up_projects(session, {job.project}), "no job starts whose project's hours are used"

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

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), hours=st.sampled_from([-1.0, 0.4, 0.8]), devices=st.integers(1, 2))
    def work(self, data: st.DataObject, hours: float, devices: int) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        accepted = True
        try:
            with self.database.writing.begin() as session:
                work_for(session, worker, hours, devices)
        except LeaseLost:
            accepted = False
        assert accepted == (worker.submission_id not in self.ended)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def let_time_pass(self, data: st.DataObject) -> None:
        with self.database.writing.begin() as session:
            pass_deadline(session, data.draw(st.sampled_from(self.jobs)))

    @rule()
    def look_at_limits(self) -> None:
        with self.database.reading() as session:
            before = {job.id: (job.state, job.paused_at) for job in session.scalars(select(JobRow))}
            asked = {attempt.submission_id for attempt in self.live(session) if attempt.stop_requested_at is not None}
            no_hours_left = bool(used_up_projects(session, {FIRST_PROJECT}))
        with self.database.writing.begin() as session:
            pause_where_limits_are_reached(session)
            stop_where_projects_have_no_hours_left(session)
        with self.database.reading() as session:
            for job in session.scalars(select(JobRow)):
                state, paused_at = before[job.id]
                assert job.state is state, "a limit ends nothing"
                if paused_at is not None or state.is_final or not self.limits(session, job):
                    assert job.paused_at == paused_at, "a job that is paused, over or within its limits is not touched"
                else:
                    assert job.paused_at is not None, "a job that has reached a limit is paused"
            for attempt in self.live(session):
                job = find_job(session, attempt.job)
                is_asked = attempt.stop_requested_at is not None
                if attempt.submission_id in asked or not no_hours_left:
                    assert is_asked == (attempt.submission_id in asked), "a worker that may go on is not asked to stop"
                elif job.cancel_requested_at is None:
                    assert is_asked or job.paused_at is not None, "no worker goes on whose project's hours are used"

    @rule(hours=st.sampled_from([None, 0.0, 1.0, 1000.0]))
    def limit_the_project(self, hours: float | None) -> None:
        with self.database.writing.begin() as session:
            limit_project(session, FIRST_PROJECT, ProjectLimits(max_hours=hours))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), max_hours=st.sampled_from([None, 1000.0]), later=st.booleans())
    def resume(self, data: st.DataObject, max_hours: float | None, later: bool) -> None:
        job_id = data.draw(st.sampled_from(self.jobs))
        limits = Limits(max_hours=max_hours, deadline=LATER if later else None)
        resumed = True
        try:
            with self.database.writing.begin() as session:
                resume_job(session, job_id, limits)
        except Conflict:
            resumed = False
        with self.database.reading() as session:
            job = find_job(session, job_id)
            if resumed:
                assert job.paused_at is None
                assert not self.limits(session, job), "no job goes on that has reached a limit"
            else:
                assert job_id in self.final or self.limits(session, job), "only a limit, or its end, keeps a job paused"

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), request=st.sampled_from([request_cancel, request_pause]))
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
            used = used_hours(session, [job.id for job in jobs])
            live = [attempt.job for attempt in self.live(session)]
            events = list(session.scalars(select(EventRow).order_by(EventRow.job, EventRow.sequence)))
        assert sorted(live) == sorted(job.id for job in jobs if job.state is JobState.RUNNING)
        for job in jobs:
            assert job.epoch >= self.epochs.get(job.id, 0)
            self.epochs[job.id] = job.epoch
            assert used[job.id] >= self.used.get(job.id, 0), "no hour is given back"
            if job.id in self.final:
                assert used[job.id] == self.used[job.id], "a job that is over uses nothing more"
            self.used[job.id] = used[job.id]
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
