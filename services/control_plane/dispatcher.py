"""The dispatcher: starts runnable jobs on Ray and, level-triggered, compares Ray's jobs with the live attempts.

Ray's word is an input, never the truth: after its head was lost it can call a dead job running for as long as one
watches. What counts is the lease, and every write of a worker is refused once its attempt has ended.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram

from services.control_plane.ray_jobs import RayJob, RayJobs, RayState
from services.storage.attempts import (
    LEASE_SECONDS,
    Dispatch,
    EndedAttempt,
    LiveAttempt,
    ended_attempts,
    extend_lease,
    live_attempts,
    lose_attempt,
    open_attempt,
    reap_attempt,
    renew_ticket,
    stop_where_projects_have_no_hours_left,
)
from services.storage.database import AWAY, Database, database_now, said
from services.storage.errors import DomainError, Unavailable
from services.storage.jobs import claim_job, pause_where_limits_are_reached
from services.storage.tables import AttemptOutcome
from services.telemetry.logs import attempt_fields, trace_fields

if TYPE_CHECKING:
    from services.telemetry.traces import Traces

RESUBMIT_SECONDS = 30.0  # an attempt that Ray does not know after this long is handed to it again
PAUSE_SECONDS = 0.1  # between ticks, however many jobs are submitted
START_SECONDS = 600.0  # a job may be pending in Ray for this long before its lease runs out
EXIT_SECONDS = 30.0  # a worker may live for this long after its last report
WAITS = (1, 2, 5, 10, 30, 60, 300, 1800, 7200, 43200, 172800)  # seconds, of the histogram's buckets

_log = logging.getLogger(__name__)


class Action(StrEnum):
    """What to do about one live attempt."""

    WAIT = "wait"
    SUBMIT = "submit"  # hand it to Ray again
    EXTEND = "extend"  # its lease, because Ray has not started it
    LOSE = "lose"  # end it: its worker is gone, or was told to stop and does not
    REAP = "reap"  # end it unless the lease was renewed meanwhile


def decide(attempt: LiveAttempt, job: RayJob | None, *, cancel_grace_seconds: float) -> Action:
    """What the reconciler does about a live attempt, given what Ray says of its job."""
    if job is not None and job.state.is_over:
        return Action.LOSE
    grace = cancel_grace_seconds if attempt.redeemed else 0.0  # nobody is there to cooperate before
    if attempt.cancel_seconds is not None and attempt.cancel_seconds >= grace:
        return Action.LOSE
    if job is None and not attempt.redeemed and attempt.age_seconds > RESUBMIT_SECONDS and attempt.lease_seconds >= 0:
        return Action.SUBMIT
    starting = job is not None and job.state is RayState.PENDING and not attempt.redeemed
    if starting and attempt.age_seconds < START_SECONDS:
        return Action.EXTEND
    return Action.REAP if attempt.lease_seconds < 0 else Action.WAIT


class Dispatcher:
    """Runs `tick` every few seconds in a thread of its own. Any number of replicas may: claims are compare-and-set."""

    def __init__(
        self,
        *,
        database: Database,
        ray: RayJobs,
        instance: str,
        max_running_jobs: int,
        max_running_jobs_per_project: int | None,
        cancel_grace_seconds: float,
        registry: CollectorRegistry,
        traces: "Traces | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._ray = ray
        self._instance = instance
        self._is_ours = re.compile(rf"{re.escape(instance)}-[0-9a-z]{{12}}-\d+").fullmatch
        self._max_running_jobs = max_running_jobs
        self._max_running_jobs_per_project = max_running_jobs_per_project
        self._cancel_grace_seconds = cancel_grace_seconds
        self._traces = traces
        self._clock = clock
        self._waits = Histogram(
            "fasterseg_claim_wait_seconds",
            "From when a job could run to its attempt",
            labelnames=["kind"],
            buckets=WAITS,
            registry=registry,
        )
        self._steady_since: float | None = None  # ticks have followed each other since
        self._last_tick = clock()
        self._last_moment: datetime | None = None  # of the last tick, by the database's clock
        self._complaint = ""  # the last one, so that an outage is logged once
        self._strangers: set[str] = set()  # Ray jobs with our prefix and no attempt, seen at the last tick

    def run(self, stop: threading.Event, runnable: threading.Event, seconds: float) -> None:
        """Ticks every so many seconds, and when `runnable` is set, until `stop` and it are.

        A tick that fails is logged: the next one sees the same rows and tries again.
        """
        while not stop.is_set():
            runnable.clear()
            try:
                self.tick()
                self._complaint = ""
            except Exception as error:  # noqa: BLE001  # whatever it was, jobs that run must not be abandoned
                self._steady_since = None
                self._complain(error)
            if not stop.wait(min(seconds, PAUSE_SECONDS)):
                runnable.wait(seconds)

    def tick(self) -> None:
        """One comparison of Ray with the rows, and whatever follows from it; limits hold while Ray is away, too."""
        with self._database.writing.begin() as session:
            pause_where_limits_are_reached(session)
            stop_where_projects_have_no_hours_left(session)
        jobs = self._ray.list_jobs()  # before the rows: what a worker reported before it ended is then in them
        self._settle(jobs, may_reap=self._is_steady())
        self._start_jobs()
        self._tidy({name for name, job in jobs.items() if self._is_ours(name) and not job.state.is_over})

    def _is_steady(self) -> bool:
        """Whether workers have had one lease length to reach us since we, or the whole machine, were last away.

        A machine that was suspended shows it by its wall clock alone, and SQLite's is that one.
        """
        now = self._clock()
        with self._database.reading() as session:
            moment = database_now(session)
        passed = now - self._last_tick
        told = (moment - (self._last_moment or moment)).total_seconds()
        if self._steady_since is None or passed > LEASE_SECONDS / 2 or told - passed > LEASE_SECONDS / 2:
            self._steady_since = now
        self._last_tick, self._last_moment = now, moment
        return now - self._steady_since >= LEASE_SECONDS

    def _settle(self, jobs: dict[str, RayJob], *, may_reap: bool) -> None:
        """Does about each live attempt what is to be done; none waits for another that cannot be helped."""
        with self._database.reading() as session:
            attempts = live_attempts(session)
        for attempt in attempts:
            job = jobs.get(attempt.submission_id)
            action = decide(attempt, job, cancel_grace_seconds=self._cancel_grace_seconds)
            if action is Action.REAP and not may_reap:
                continue
            try:
                self._do(action, attempt, job)
            except Exception as error:  # noqa: BLE001  # whatever it was, the next tick tries again
                if isinstance(error, (Unavailable, *AWAY)):
                    self._steady_since = None  # workers may have been cut off, too
                fields = {**attempt_fields(attempt.submission_id), "action": action.value, "error": said(error)}
                _log.warning("attempt was not settled", exc_info=not _is_known(error), extra=fields)

    def _do(self, action: Action, attempt: LiveAttempt, job: RayJob | None) -> None:
        name = attempt.submission_id
        if action in (Action.LOSE, Action.SUBMIT, Action.REAP):
            extra = {**attempt_fields(name), "action": action.value, "lease_seconds": round(attempt.lease_seconds)}
            _log.warning("attempt without a worker", extra={**extra, "ray_state": job and job.state.value})
        match action:
            case Action.LOSE:
                with self._database.writing.begin() as session:
                    lose_attempt(session, name, _describe(job))
            case Action.REAP:
                with self._database.writing.begin() as session:
                    reap_attempt(session, name, f"the worker was not heard of for {LEASE_SECONDS} s")
            case Action.EXTEND:
                with self._database.writing.begin() as session:
                    extend_lease(session, name)
            case Action.SUBMIT:
                with self._database.writing.begin() as session:
                    dispatch = renew_ticket(session, name, timedelta(seconds=RESUBMIT_SECONDS))
                if dispatch is not None:
                    self._submit(dispatch)

    def _start_jobs(self) -> None:
        while (dispatch := self._claim()) is not None:
            self._waits.labels(dispatch.kind).observe(dispatch.waited_seconds)
            waited = round(dispatch.waited_seconds, 3)
            fields = {**_fields(dispatch), **trace_fields(dispatch.traceparent)}
            _log.info("claimed", extra={**fields, "waited_seconds": waited})
            self._submit(dispatch)

    def _submit(self, dispatch: Dispatch) -> None:
        """Hands an attempt to Ray; its worker goes on with the trace of the request that submitted the job."""
        if self._traces is None:
            self._ray.submit(dispatch)
            return
        with self._traces.span("dispatch", dispatch.traceparent, _fields(dispatch)) as span:
            self._ray.submit(replace(dispatch, traceparent=span.traceparent))

    def _claim(self) -> Dispatch | None:
        with self._database.writing.begin() as session:
            if len(live_attempts(session)) >= self._max_running_jobs:
                return None
            job = claim_job(session, self._max_running_jobs_per_project)
            return None if job is None else open_attempt(session, job, self._instance)

    def _tidy(self, alive: set[str]) -> None:
        """Stops Ray jobs whose attempt has ended or that no row knows."""
        with self._database.reading() as session:
            ended = ended_attempts(session, list(alive))
            live = {attempt.submission_id for attempt in live_attempts(session)}
        strangers = alive - {attempt.submission_id for attempt in ended} - live
        gone = {attempt.submission_id for attempt in ended if _should_be_gone(attempt)}
        for name in gone | (strangers & self._strangers):
            self._stop(name)
        self._strangers = strangers

    def _complain(self, error: Exception) -> None:
        complaint = said(error)
        if complaint != self._complaint:
            _log.warning("tick failed", exc_info=not _is_known(error), extra={"error": complaint})
        self._complaint = complaint

    def _stop(self, submission_id: str) -> None:
        """One refusal must not keep the others waiting; the next tick tries again."""
        try:
            self._ray.stop(submission_id)
        except DomainError as error:
            _log.warning("not stopped", extra={**attempt_fields(submission_id), "error": str(error)})


def _is_known(error: Exception) -> bool:
    """Whether an error needs no trace to be understood."""
    return isinstance(error, (DomainError, *AWAY))


def _fields(dispatch: Dispatch) -> dict[str, object]:
    return {**attempt_fields(dispatch.submission_id), "project": dispatch.project, "kind": dispatch.kind.value}


def _should_be_gone(attempt: EndedAttempt) -> bool:
    return attempt.outcome is AttemptOutcome.LOST or attempt.age_seconds > EXIT_SECONDS


def _describe(job: RayJob | None) -> str:
    if job is None or not job.state.is_over:
        return "stopped, because the worker did not acknowledge the request to cancel"
    return f"the Ray job {job.state.lower()} without a report: {job.message or 'no message'}"
