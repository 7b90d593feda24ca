"""The client of the control plane for users: submit jobs, follow them, fetch what they made."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

import httpx
from pydantic import BaseModel

from .errors import FasterSegError, ProblemError
from .schemas import (
    ArchitecturePage,
    ArchitectureRecord,
    ArchitectureSubmission,
    CalibrationRecord,
    Estimate,
    EstimateRequest,
    EstimateResponse,
    Event,
    EventPage,
    Health,
    Inputs,
    Item,
    Job,
    JobKind,
    JobPage,
    JobState,
    JobSubmission,
    JsonObject,
    LatencyTablePage,
    LatencyTableSubmission,
    LatencyTableSummary,
    Limits,
    Page,
    Plan,
    Preset,
    ProjectLimits,
    ProjectPage,
    ProjectRecord,
    Scope,
    TokenPage,
    TokenRecord,
    TokenSecret,
    TokenSubmission,
)
from .transport import build_post, connect, lines, parsed, parsed_document, parsed_part, receive, send

PATIENCE_SECONDS = 6.0  # of one request while the service is away; it asks for 5 s where a part of it is
FOLLOW_PATIENCE_SECONDS = 60.0  # of a request that follows a job, so that a restart of the service is survived
STREAM_PAUSE_SECONDS = 1.0  # before a stream is opened again
EVENT_DATA = b"data: "  # begins the line of a server-sent event that holds it


class SubmissionOptions(TypedDict, total=False):
    """What a submission may say besides its kind and spec; `preset` is `paper` where nothing is said."""

    preset: Preset | str
    after: Sequence[str]  # ids of jobs, on whose results it runs
    inputs: Inputs
    name: str | None
    priority: int  # from -100 to 100; of two jobs that can run the higher starts first
    max_hours: float | None
    deadline: datetime | None


class FasterSegClient:
    """A connection to the service at `url`, which asks for a token of a project; a context manager.

    Every method raises UnreachableError where nothing answers and ProblemError where the service refuses.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._http = connect(url, token=token, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def submit(
        self,
        kind: JobKind | str,
        spec: JsonObject | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SubmissionOptions],
    ) -> Job:
        """The accepted job; submitting again with the same key and values returns the same job."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parsed(Job, self._post("jobs", _submission(kind, spec, options), headers=headers))

    def plan(self, kind: JobKind | str, spec: JsonObject | None = None, **options: Unpack[SubmissionOptions]) -> Plan:
        """What a submission of the same values would be, with its steps and its estimated cost; nothing is submitted.

        Refused as it would be, but for rows that a search's latency table lacks: these are named.
        """
        return parsed(Plan, self._post("plans", _submission(kind, spec, options)))

    def jobs(self, *, state: JobState | None = None, kind: JobKind | None = None) -> Iterator[Job]:
        """All jobs, or those of a state or kind, newest first, fetched page by page."""
        query = {name: str(value) for name, value in (("state", state), ("kind", kind)) if value is not None}
        return self._pages(JobPage, "jobs", query)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return parsed(Job, self._get(f"jobs/{job_id}"))

    def cancel(self, job_id: str) -> Job:
        """The job, with its cancellation requested."""
        return parsed(Job, self._post(f"jobs/{job_id}/cancel"))

    def pause(self, job_id: str) -> Job:
        """The job, which will not start, or is asked to stop, until it is resumed."""
        return parsed(Job, self._post(f"jobs/{job_id}/pause"))

    def resume(self, job_id: str, *, max_hours: float | None = None, deadline: datetime | None = None) -> Job:
        """The job, which goes on where it was, with the limits that are given."""
        return parsed(Job, self._post(f"jobs/{job_id}/resume", Limits(max_hours=max_hours, deadline=deadline)))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """The job's history beyond the event number `after`, in order."""
        return self._events(job_id, after, PATIENCE_SECONDS)

    def stream_events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """The job's history beyond the event number `after` as it happens, until the job is over.

        A stream that breaks is opened again where it broke; UnreachableError where the service stays away.
        """
        path = f"jobs/{job_id}/events/stream"
        while True:
            request = self._http.build_request("GET", path, headers={"Last-Event-ID": str(after)})
            try:
                for line in lines(self._http, request):
                    if line.startswith(EVENT_DATA):
                        event = parsed_part(Event, line.removeprefix(EVENT_DATA), request)
                        yield event
                        after = event.sequence
            except FasterSegError as error:
                if error.retry_after_seconds is None:
                    raise
            if self._followed(job_id).state.is_final:
                yield from self._events(job_id, after, FOLLOW_PATIENCE_SECONDS)  # what a stream that ended early left
                return
            time.sleep(STREAM_PAUSE_SECONDS)

    def logs(self, job_id: str, *, attempt: int | None = None) -> str:
        """What an attempt at the job, or the latest, printed so far."""
        return self._get(f"jobs/{job_id}/logs", {} if attempt is None else {"attempt": str(attempt)}).text

    def follow(self, *job_ids: str, poll_seconds: float = 1.0, timeout: float | None = None) -> Iterator[Job]:
        """Each job whenever it changed, until all are in their final states.

        Raises:
            TimeoutError: they were not within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: dict[str, Job] = {}
        while True:
            for job_id in job_ids:
                if job_id in seen and seen[job_id].state.is_final:
                    continue
                job = self._followed(job_id)
                if job != seen.get(job_id):
                    seen[job_id] = job
                    yield job
            running = [job_id for job_id, job in seen.items() if not job.state.is_final]
            if not running:
                return
            if deadline is not None and time.monotonic() + poll_seconds > deadline:
                raise TimeoutError(f"after {timeout:g} s not finished: {', '.join(running)}")
            time.sleep(poll_seconds)

    def wait(self, job_id: str, *, poll_seconds: float = 1.0, timeout: float | None = None) -> Job:
        """The job in its final state, whichever that is; TimeoutError where it takes longer than `timeout` seconds."""
        *_, job = self.follow(job_id, poll_seconds=poll_seconds, timeout=timeout)
        return job

    def follow_logs(self, job_id: str, *, poll_seconds: float = 2.0) -> Iterator[str]:
        """What the job prints, piece by piece, until it ends; a new attempt begins with its whole log."""
        printed = ""
        while True:
            is_final = self._followed(job_id).state.is_final  # read first, so that the last lines are not missed
            try:
                log = self._get(f"jobs/{job_id}/logs", patience_seconds=FOLLOW_PATIENCE_SECONDS).text
            except ProblemError as error:
                if is_final or error.status != httpx.codes.GONE:
                    raise
                log = ""  # of an attempt that was lost: the next one follows
            if not printed.startswith(log):  # what is kept while Ray is away may lack the last lines
                yield log.removeprefix(printed)
                printed = log
            if is_final:
                return
            time.sleep(poll_seconds)

    def artifact(self, sha256: str) -> bytes:
        """The bytes of an artifact, wherever the service has them.

        Raises:
            CorruptArtifactError: what arrived is not of this digest.
            StoreError: the service linked to a store, which did not hand it out.
        """
        file = BytesIO()
        receive(self._http, sha256, file, timeout=self._http.timeout, patience_seconds=PATIENCE_SECONDS)
        return file.getvalue()

    def fetch(self, job: Job, folder: Path) -> list[Path]:
        """The files written for what a job made: its artifacts, architectures and latency table.

        Each appears whole and verified, or not at all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = [_write(folder / artifact.name, self.artifact(artifact.sha256)) for artifact in job.artifacts]
        for role, architecture_id in job.architectures.items():
            document = json.dumps(self.architecture(architecture_id).document, indent=2)
            paths.append(_write(folder / f"architecture-{role}.json", document.encode()))
        if job.latency_table is not None:
            table = self._get(f"latency-tables/{job.latency_table}").content
            paths.append(_write(folder / "latency-table.json", table))
        return paths

    def latency_tables(self) -> list[LatencyTableSummary]:
        """What tables there are, and what each was measured on."""
        return list(self._pages(LatencyTablePage, "latency-tables", {}))

    def latency_table(self, table_id: str) -> JsonObject:
        """The document of a latency table."""
        return parsed_document(self._get(f"latency-tables/{table_id}"))

    def add_latency_table(self, document: JsonObject) -> LatencyTableSummary:
        """The summary of a latency table of the user's own; adding it again changes nothing."""
        return parsed(LatencyTableSummary, self._post("latency-tables", LatencyTableSubmission(document=document)))

    def calibration(self, table_id: str) -> JsonObject | None:
        """The correction of a table's sums, if it has one."""
        return parsed(CalibrationRecord, self._get(f"latency-tables/{table_id}/calibration")).calibration

    def estimate(
        self, table_id: str, architectures: Sequence[str | JsonObject], *, breakdown: bool = False
    ) -> list[Estimate]:
        """The predicted latency of each architecture, given by id or as a document, on a table's device."""
        request = EstimateRequest(architectures=list(architectures), breakdown=breakdown)
        return parsed(EstimateResponse, self._post(f"latency-tables/{table_id}/estimates", request)).items

    def architectures(self) -> list[ArchitectureRecord]:
        """The architectures that searches derived and users added."""
        return list(self._pages(ArchitecturePage, "architectures", {}))

    def architecture(self, architecture_id: str) -> ArchitectureRecord:
        """One architecture, its document and where it comes from."""
        return parsed(ArchitectureRecord, self._get(f"architectures/{architecture_id}"))

    def architecture_svg(self, architecture_id: str) -> str:
        """One architecture drawn as in Figure 6, as SVG."""
        return self._get(f"architectures/{architecture_id}.svg").text

    def add_architecture(self, document: JsonObject) -> ArchitectureRecord:
        """The record of an architecture of the user's own; adding it again changes nothing."""
        return parsed(ArchitectureRecord, self._post("architectures", ArchitectureSubmission(document=document)))

    def create_token(
        self, name: str, scope: Scope | str, *, project: str | None = None, days: int | None = None
    ) -> TokenSecret:
        """A new token with its secret, which is never shown again; of an operator for any project.

        It is asked for once: where the answer is lost, `tokens` shows whether one was made, which is to be revoked.
        """
        submission = TokenSubmission(name=name, scope=Scope(scope), project=project, days=days)
        return parsed(TokenSecret, self._post("tokens", submission, patience_seconds=0.0))

    def tokens(self) -> list[TokenRecord]:
        """The project's tokens, oldest first."""
        return parsed(TokenPage, self._get("tokens")).items

    def revoke_token(self, token_id: str) -> TokenRecord:
        """The token, which is good for nothing from now on."""
        request = self._http.build_request("DELETE", f"tokens/{token_id}")
        return parsed(TokenRecord, send(self._http, request, patience_seconds=PATIENCE_SECONDS))

    def projects(self) -> list[ProjectRecord]:
        """The token's project, or for an operator all, by name."""
        return parsed(ProjectPage, self._get("projects")).items

    def project(self, name: str) -> ProjectRecord:
        """What the jobs of the project, or for an operator of any, have used, and may use."""
        return parsed(ProjectRecord, self._get(f"projects/{name}"))

    def limit_project(self, name: str, *, max_hours: float | None) -> ProjectRecord:
        """The project, whose jobs may use so many hours in all, or for None as many as they need; operators only."""
        limits = ProjectLimits(max_hours=max_hours).model_dump(mode="json")
        request = self._http.build_request("PUT", f"projects/{name}", json=limits)
        return parsed(ProjectRecord, send(self._http, request, patience_seconds=PATIENCE_SECONDS))

    def health(self) -> Health:
        """How the parts of the service are."""
        return parsed(Health, self._get("health"))

    def _pages(self, model: type[Page[Item]], path: str, query: dict[str, str]) -> Iterator[Item]:
        while True:
            page = parsed(model, self._get(path, query))
            yield from page.items
            if page.next_cursor is None:
                return
            query = query | {"cursor": page.next_cursor}

    def _events(self, job_id: str, after: int, patience_seconds: float) -> Iterator[Event]:
        path = f"jobs/{job_id}/events"
        while True:
            page = self._get(path, {"after": str(after)}, patience_seconds=patience_seconds)
            items = parsed(EventPage, page).items
            if not items:
                return
            yield from items
            after = items[-1].sequence

    def _followed(self, job_id: str) -> Job:
        return parsed(Job, self._get(f"jobs/{job_id}", patience_seconds=FOLLOW_PATIENCE_SECONDS))

    def _get(
        self, path: str, query: dict[str, str] | None = None, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> httpx.Response:
        request = self._http.build_request("GET", path, params=query)
        return send(self._http, request, patience_seconds=patience_seconds)

    def _post(
        self,
        path: str,
        body: BaseModel | None = None,
        *,
        headers: dict[str, str] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> httpx.Response:
        return send(self._http, build_post(self._http, path, body, headers), patience_seconds=patience_seconds)


def _submission(kind: JobKind | str, spec: JsonObject | None, options: SubmissionOptions) -> JobSubmission:
    return JobSubmission.model_validate({"kind": kind, "spec": spec or {}, **options})


def _write(path: Path, data: bytes) -> Path:
    """The path, with a file that was complete before it got its name."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
