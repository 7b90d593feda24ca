"""A control plane in memory behind a real socket: the routes that clients use, and the ways in which it can be away."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from services.client.attempt_schemas import (
    Assignment,
    AttemptStatus,
    CheckpointRef,
    Heartbeat,
    ResolvedInputs,
    WorkerEvent,
    WorkerEvents,
)
from services.client.latency_table import table_digest
from services.client.schemas import (
    ArchitecturePage,
    ArchitectureRecord,
    ArchitectureSubmission,
    Artifact,
    CostEstimate,
    Estimate,
    EstimateRequest,
    EstimateResponse,
    Event,
    EventPage,
    FailureClass,
    Health,
    Inputs,
    InvalidField,
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
    Plan,
    PlannedPhase,
    Problem,
    Progress,
    ProjectLimits,
    ProjectPage,
    ProjectRecord,
    Reason,
    TokenPage,
    TokenRecord,
    TokenSecret,
    TokenSubmission,
)
from tests.http_handlers import handling

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SUBMISSION_ID = "test-00000search0-1"
TICKET = "a-ticket-of-sixteen-characters"
TOKEN = "token-of-the-attempt"
ARCHITECTURE_DOCUMENT = {"stem_ratio": 8, "branches": []}
CONV, SKIP = "conv 64->64 8x16 /1", "skip 64->64 8x16 /1"


def a_row(milliseconds: float = 1.0, **values: object) -> JsonObject:
    defaults = {"lower_quartile": milliseconds, "upper_quartile": milliseconds, "samples": 5}
    return {"milliseconds": milliseconds, **defaults, "state": "measured", "reason": "", **values}


def a_table_document(rows: dict[str, JsonObject] | None = None, **fingerprint: object) -> JsonObject:
    defaults = {
        "engine": "onnxruntime",
        "engine_version": "1.20",
        "device": "a processor",
        "driver": "none",
        "threads": 1,
        "precision": "fp32",
        "protocol": "made up",
        "resolution": {"height": 64, "width": 128},
        "num_classes": 11,
        "interpolation": "bilinear",
    }
    return {"fingerprint": {**defaults, **fingerprint}, "rows": rows or {CONV: a_row(1.5), SKIP: a_row(0.5)}}


TABLE_DOCUMENT = a_table_document()
PAGE_SIZE = 2

Stage = TypeVar("Stage")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ARCHITECTURE_ID = sha256(b"architecture")
TABLE_ID = table_digest(TABLE_DOCUMENT)


def a_job(**values: object) -> Job:
    defaults = {
        "id": "0000000000ab",
        "kind": JobKind.SEARCH,
        "name": None,
        "state": JobState.QUEUED,
        "spec": {},
        "after": [],
        "inputs": Inputs(),
        "epoch": 1,
        "ray_submission_id": None,
        "progress": None,
        "reason": None,
        "result": None,
        "latency_table": None,
        "architectures": {},
        "artifacts": [],
        "priority": 0,
        "max_hours": None,
        "deadline": None,
        "used_hours": 0.0,
        "limit_reached": None,
        "paused": False,
        "cancel_requested": False,
        "created_at": NOW,
        "created_by": "0000000token",
        "started_at": None,
        "finished_at": None,
    }
    return Job.model_validate(defaults | values)


def a_failed_job(message: str = "resolution 64 x 64 is too small\nfor this crop", **values: object) -> Job:
    return a_job(
        state=JobState.FAILED,
        reason=Reason(failure=FailureClass.USER_ERROR, message=message),
        finished_at=NOW,
        **values,
    )


def an_estimate(**values: object) -> CostEstimate:
    defaults = {
        "seconds": 37_000.0,
        "peak_memory_bytes": 9_500_000_000,
        "peak_gpu_memory_bytes": None,
        "job": "0000000000aa",
        "device": "a processor, 2 threads",
        "reason": None,
    }
    return CostEstimate.model_validate(defaults | values)


def a_project(**values: object) -> ProjectRecord:
    defaults = {"name": "default", "max_hours": None, "used_hours": 1.25, "left_hours": None}
    return ProjectRecord.model_validate(defaults | values)


def a_plan(**values: object) -> Plan:
    defaults = {
        "kind": JobKind.SEARCH,
        "spec": {"seed": 7},
        "inputs": [],
        "waits_for": [],
        "missing_rows": [],
        "rows": None,
        "phases": [PlannedPhase(name="pretrain", steps=9_000), PlannedPhase(name="search", steps=13_500)],
        "steps": 22_500,
        "estimate": an_estimate(),
        "project": a_project(),
    }
    return Plan.model_validate(defaults | values)


def a_progress(**values: object) -> Progress:
    defaults = {"phase": "search", "epoch": 2, "epochs": 5, "step": 3, "steps": 10, "fraction": 0.25}
    return Progress.model_validate(defaults | values)


def an_artifact(name: str, data: bytes) -> Artifact:
    return Artifact(name=name, sha256=sha256(data), size=len(data), media_type="application/octet-stream")


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


class FakeControlPlane:
    """What it holds is open to the tests: they arrange it, let a client speak to it, and look."""

    def __init__(self) -> None:
        self.requests: list[str] = []  # every one that was answered or whose effect took place
        self.away = False  # closes every connection without an answer
        self.turned_away = 0  # so many requests, while it was away
        self.lost_replies = 0  # the next so many requests take effect, but their answers are lost
        self.busy_replies = 0  # the next so many requests are answered by 503
        self.retry_after = "0"
        self.refusals: dict[str, Answer] = {}  # by request, as "POST /jobs"

        self.jobs: dict[str, list[Job]] = {}  # each request of a job shows the next of its stages, then stays
        self.fate: list[JobState] = []  # the states after queued that submitted jobs go through
        self.made: dict[str, object] = {}  # what they have then
        self.submissions: dict[str, JobSubmission] = {}  # by Idempotency-Key
        self.planned: list[JobSubmission] = []
        self.plan = a_plan()  # the answer to each of them
        self.limits: Limits | None = None  # with which a job was resumed
        self.logs: list[str | None] = [""]  # likewise; None: it was lost
        self.earlier_logs: dict[int, str] = {}  # by attempt
        self.events = [Event(sequence=n, kind="epoch", epoch=1, data={}, created_at=NOW) for n in (1, 2, 3, 4, 5)]
        self.artifacts: dict[str, bytes] = {}
        self.latency_tables = {TABLE_ID: TABLE_DOCUMENT}
        self.tokens: dict[str, TokenRecord] = {}
        self.projects: dict[str, ProjectRecord] = {"default": a_project()}
        self.shown: list[str | None] = []  # the Authorization of each request

        self.lease_lost = False
        self.cancel_requested = False
        self.heartbeats: list[Progress | None] = []
        self.devices: int | None = None  # in the last heartbeat
        self.worker_events: dict[int, WorkerEvent] = {}  # in the order of their arrival
        self.checkpoints: list[CheckpointRef] = []
        self.end: str | None = None
        self.end_body = b""

        self.url = ""
        self._changed = threading.Condition()

    def add(self, *stages: Job) -> str:
        """The id of a job that goes through these stages."""
        self.jobs[stages[0].id] = list(stages)
        return stages[0].id

    def add_artifact(self, data: bytes) -> str:
        self.artifacts[sha256(data)] = data
        return sha256(data)

    def add_table(self, document: JsonObject) -> str:
        self.latency_tables[table_digest(document)] = document
        return table_digest(document)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Returns once the condition, of this plane or of its client, holds."""
        deadline = time.monotonic() + 120
        with self._changed:
            while not condition():
                assert time.monotonic() < deadline, "waited in vain"
                self._changed.wait(0.01)

    def handle(self, method: str, path: str, token: str | None, key: str | None, body: bytes) -> Answer | None:
        """The answer to a request; None where the connection closes without one."""
        parts = urlsplit(path)
        route = parts.path.removeprefix("/api/v1")
        with self._changed:
            self._changed.notify_all()
            if self.away:
                self.turned_away += 1
                return None
            if self.busy_replies:
                self.busy_replies -= 1
                problem = Problem(title="Service Unavailable", status=503, detail="the database is away")
                return problem_answer(problem)._replace(headers={"Retry-After": self.retry_after})
            self.requests.append(f"{method} {route}")
            self.shown.append(token)
            answer = self.refusals.get(f"{method} {route}") or self._answer(
                method, route.strip("/").split("/"), dict(parse_qsl(parts.query)), token, key, body
            )
            if self.lost_replies:
                self.lost_replies -= 1
                return None
            return answer

    def _answer(
        self, method: str, route: list[str], query: dict[str, str], token: str | None, key: str | None, body: bytes
    ) -> Answer:
        match method, route:
            case "POST", ["jobs"]:
                return self._submit(JobSubmission.model_validate_json(body), key or "")
            case "POST", ["plans"]:
                self.planned.append(JobSubmission.model_validate_json(body))
                return _ok(self.plan)
            case "GET", ["jobs"]:
                start = int(query.get("cursor", "0"))
                jobs = [stages[0] for stages in self.jobs.values()]
                jobs = [job for job in jobs if query.get("state", job.state) == job.state]
                jobs = [job for job in jobs if query.get("kind", job.kind) == job.kind]
                following = str(start + PAGE_SIZE) if start + PAGE_SIZE < len(jobs) else None
                return _ok(JobPage(items=jobs[start : start + PAGE_SIZE], next_cursor=following))
            case "GET", ["jobs", job_id]:
                if job_id not in self.jobs:
                    return problem_answer(Problem(title="Not Found", status=404, detail=f"there is no job {job_id}"))
                return _ok(_next(self.jobs[job_id]))
            case "POST", ["jobs", job_id, "cancel"]:
                self.jobs[job_id] = [job.model_copy(update={"cancel_requested": True}) for job in self.jobs[job_id]]
                return _ok(self.jobs[job_id][0])
            case "POST", ["jobs", job_id, ("pause" | "resume") as action]:
                self.limits = Limits.model_validate_json(body) if action == "resume" else None
                changes = {"paused": action == "pause"}
                self.jobs[job_id] = [job.model_copy(update=changes) for job in self.jobs[job_id]]
                return _ok(self.jobs[job_id][0])
            case "GET", ["jobs", _, "events"]:
                later = [event for event in self.events if event.sequence > int(query["after"])]
                return _ok(EventPage(items=later[:PAGE_SIZE]))
            case "GET", ["jobs", _, "events", "stream"]:
                return Answer(
                    200, b"".join(b"data: %s\n\n" % event.model_dump_json().encode() for event in self.events)
                )
            case "GET", ["jobs", _, "logs"]:
                text = self.earlier_logs[int(query["attempt"])] if "attempt" in query else _next(self.logs)
                if text is None:
                    return problem_answer(Problem(title="Gone", status=410, detail="it was lost with Ray"))
                return Answer(200, text.encode())
            case "GET", ["artifacts", digest]:
                return Answer(200, self.artifacts[digest])
            case "PUT", ["blobs", digest]:
                self.artifacts[digest] = body
                return Answer(204)
            case "GET", ["health"]:
                parts = dict.fromkeys(("database", "store", "ray", "profiler"), "ok")
                return _ok(Health(status="ok", version="0.1.0", ray_dashboard="http://127.0.0.1:8265", **parts))
            case _, ["latency-tables", *rest]:
                return self._latency_tables(method, rest, body)
            case "GET", ["projects"]:
                return _ok(ProjectPage(items=list(self.projects.values())))
            case "GET", ["projects", name]:
                return _ok(self.projects[name])
            case "PUT", ["projects", name]:
                limits = ProjectLimits.model_validate_json(body)
                left = None if limits.max_hours is None else limits.max_hours
                self.projects[name] = a_project(name=name, max_hours=limits.max_hours, used_hours=0, left_hours=left)
                return _ok(self.projects[name])
            case _, ["tokens", *rest]:
                return self._tokens(method, rest, body)
            case _, ["architectures", *rest]:
                return _architectures(method, rest, body)
            case "POST", ["attempts", submission_id, action] if submission_id == SUBMISSION_ID:
                return self._attempt(action, token, body)
        return problem_answer(Problem(title="Not Found", status=404, detail="/".join(route)))

    def _submit(self, submission: JobSubmission, key: str) -> Answer:
        if key not in self.submissions:
            self.submissions[key] = submission
            values = {name: getattr(submission, name) for name in ("kind", "name", "spec", "after", "inputs")}
            job = a_job(id=f"{len(self.submissions):012}", **values)
            self.add(job, *(job.model_copy(update={"state": state, **self.made}) for state in self.fate))
        number = list(self.submissions).index(key) + 1
        return _ok(self.jobs[f"{number:012}"][0], 202)

    def _latency_tables(self, method: str, route: list[str], body: bytes) -> Answer:
        match method, route:
            case "POST", []:
                document = LatencyTableSubmission.model_validate_json(body).document
                return _ok(_summary(self.add_table(document), document), 201)
            case "GET", []:
                items = [_summary(table, document) for table, document in self.latency_tables.items()]
                return _ok(LatencyTablePage(items=items, next_cursor=None))
            case "GET", [table] if table in self.latency_tables:
                return Answer(200, json.dumps(self.latency_tables[table]).encode())
            case "GET", [table]:
                return problem_answer(
                    Problem(title="Not Found", status=404, detail=f"there is no latency table {table}")
                )
        request = EstimateRequest.model_validate_json(body)
        estimate = Estimate(milliseconds=1.5, num_executed=3, parts={"stem": 1.5})
        return _ok(EstimateResponse(items=[estimate for _ in request.architectures]))

    def _tokens(self, method: str, route: list[str], body: bytes) -> Answer:
        match method, route:
            case "POST", []:
                asked = TokenSubmission.model_validate_json(body)
                expires_at = None if asked.days is None else NOW + timedelta(days=asked.days)
                record = TokenRecord(
                    id=f"{len(self.tokens):012}",
                    project=asked.project or "default",
                    name=asked.name,
                    scope=asked.scope,
                    created_at=NOW,
                    created_by="oidc:ana",
                    expires_at=expires_at,
                    last_used_at=None,
                    revoked_at=None,
                )
                self.tokens[record.id] = record
                return _ok(TokenSecret(record=record, secret="a new secret"), 201)
            case "GET", []:
                return _ok(TokenPage(items=list(self.tokens.values())))
            case "DELETE", [token_id] if token_id in self.tokens:
                self.tokens[token_id] = self.tokens[token_id].model_copy(update={"revoked_at": NOW})
                return _ok(self.tokens[token_id])
        return problem_answer(Problem(title="Not Found", status=404, detail="there is no such token"))

    def _attempt(self, action: str, token: str | None, body: bytes) -> Answer:
        if self.lease_lost or self.end is not None:
            return problem_answer(Problem(title="Conflict", status=409, detail="the lease of this attempt was lost"))
        if action != "redeem" and token != f"Bearer {TOKEN}":
            return problem_answer(Problem(title="Unauthorized", status=401, detail="no token of this attempt"))
        match action:
            case "redeem":
                return _ok(an_assignment())
            case "heartbeat":
                beat = Heartbeat.model_validate_json(body)
                self.heartbeats.append(beat.progress)
                self.devices = beat.devices
            case "events":
                for event in WorkerEvents.model_validate_json(body).items:
                    self.worker_events.setdefault(event.worker_sequence, event)
            case "checkpoint":
                self.checkpoints.append(CheckpointRef.model_validate_json(body))
            case _:
                self.end, self.end_body = action, body
                return Answer(204)
        return _ok(AttemptStatus(stop=self.cancel_requested))


def an_assignment() -> Assignment:
    return Assignment(
        token=TOKEN,
        job="00000search0",
        kind=JobKind.SEARCH,
        epoch=1,
        spec={},
        inputs=ResolvedInputs(),
        checkpoints=[],
        heartbeat_seconds=0.05,
    )


@contextmanager
def serving(plane: FakeControlPlane) -> Iterator[FakeControlPlane]:
    """The plane, at its own url."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = self.headers
            answer = plane.handle(
                self.command, self.path, headers.get("Authorization"), headers.get("Idempotency-Key"), body
            )
            if answer is None:
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_POST = do_GET
        do_PUT = do_GET
        do_DELETE = do_GET

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass  # quiet

    with handling(Handler) as plane.url:
        yield plane


def unknown_field(field: str) -> Answer:
    """The refusal of a submission with a field that its kind does not have."""
    errors = [InvalidField(field=field, message="unknown field; did you mean num_layers?")]
    return problem_answer(Problem(title="Invalid submission", status=422, detail="1 field was refused", errors=errors))


def link_to(store: FakeControlPlane, data: bytes) -> Answer:
    """The answer that sends on for a blob, to another plane that has it."""
    return Answer(307, headers={"Location": f"{store.url}/artifacts/{store.add_artifact(data)}?signed"})


def _architectures(method: str, route: list[str], body: bytes) -> Answer:
    record = ArchitectureRecord(id=ARCHITECTURE_ID, document=ARCHITECTURE_DOCUMENT, job=None, role=None, created_at=NOW)
    match method, route:
        case "POST", []:
            return _ok(
                record.model_copy(update={"document": ArchitectureSubmission.model_validate_json(body).document})
            )
        case "GET", []:
            return _ok(ArchitecturePage(items=[record], next_cursor=None))
        case "GET", [name] if name.endswith(".svg"):
            return Answer(200, b"<svg/>")
    return _ok(record)


def _summary(table: str, document: JsonObject) -> LatencyTableSummary:
    rows = document["rows"]
    quarantined = sum(row["state"] == "quarantined" for row in rows.values())
    return LatencyTableSummary(
        id=table,
        fingerprint=document["fingerprint"],
        rows=len(rows),
        quarantined=quarantined,
        job=None,
        created_at=NOW,
    )


def _next(stages: list[Stage]) -> Stage:
    return stages.pop(0) if len(stages) > 1 else stages[0]


def _ok(value: BaseModel, status: int = 200) -> Answer:
    return Answer(status, value.model_dump_json().encode())


def problem_answer(problem: Problem) -> Answer:
    return Answer(problem.status, problem.model_dump_json().encode())
