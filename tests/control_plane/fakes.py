"""Ray and the profiler as a test wants them."""

import json
from collections.abc import Callable

import httpx

from services.control_plane.ray_jobs import RayJob, RayState
from services.storage.attempts import Dispatch
from services.storage.errors import Unavailable


class FakeRay:
    """A Ray cluster whose jobs change state only when a test says so."""

    def __init__(self) -> None:
        self.jobs: dict[str, RayJob] = {}
        self.submitted: list[Dispatch] = []
        self.stopped: list[str] = []
        self.printed: dict[str, str] = {}
        self.is_away = False
        self.withheld: set[str] = set()  # the jobs whose logs it does not give
        self.loses_submissions = False
        self.work: Callable[[], object] = lambda: None  # before it answers
        self.checks = 0

    def submit(self, dispatch: Dispatch) -> None:
        self.check()
        self.submitted.append(dispatch)
        if not self.loses_submissions:
            self.jobs.setdefault(dispatch.submission_id, RayJob(RayState.PENDING))

    def list_jobs(self) -> dict[str, RayJob]:
        self.check()
        return dict(self.jobs)

    def stop(self, submission_id: str) -> None:
        self.check()
        self.stopped.append(submission_id)

    def logs(self, submission_id: str) -> str:
        self.check()
        if submission_id in self.withheld:
            raise Unavailable(f"no agent has the log of {submission_id}")
        return self.printed.get(submission_id, "")

    def check(self) -> None:
        self.checks += 1
        self.work()
        if self.is_away:
            raise Unavailable("Ray does not answer")

    def say(self, submission_id: str, state: RayState, message: str = "") -> None:
        """Lets Ray report a state of a job."""
        self.jobs[submission_id] = RayJob(state, message)


class FakeProfiler:
    """Answers estimates with 2 ms each, unless told otherwise."""

    def __init__(self) -> None:
        self.answer: httpx.Response | None = None
        self.is_away = False
        self.work: Callable[[], object] = lambda: None  # before it answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("refused", request=request)
        self.requests.append(request)
        self.work()
        if self.answer is not None:
            return self.answer
        if request.method == "GET":
            return httpx.Response(200)
        architectures = json.loads(request.content)["architectures"]
        return httpx.Response(
            200,
            json={"items": [{"milliseconds": 2.0, "num_executed": 4, "parts": {"cells": 2.0}}] * len(architectures)},
        )
