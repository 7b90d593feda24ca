"""A stand-in for Ray's Jobs API where Ray is not the subject: the same HTTP, behind it processes that start at once."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from multiprocessing.process import BaseProcess

from pydantic import TypeAdapter

from tests.faults.counting_worker import work
from tests.faults.processes import started
from tests.http_handlers import handling

_TEXTS = TypeAdapter(dict[str, str])


class RayStandIn:
    """Jobs by their submission ids. Tests look at `processes` and say what goes wrong."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.url = ""
        self.token: str | None = "what Ray was started with"  # none: it lets in everyone
        self.processes: dict[str, BaseProcess] = {}
        self.metadata: dict[str, object] = {}
        self.work: Callable[[Mapping[str, str]], None] = work  # of a job, given its environment
        self.submitted: list[object] = []  # what was asked for, all of which Ray's job list shows
        self.stops: list[str] = []  # as they were asked for
        self.is_away = False  # closes every connection without an answer
        self.lost_replies = 0  # the next so many submissions are started, and their answers lost
        self.holds_back = False  # jobs are PENDING until `release`
        self.stops_nothing = False  # as where the node cannot be reached
        self._environment = dict(environment)
        self._pending: dict[str, dict[str, str]] = {}
        self._stopped: set[str] = set()
        self._lock = threading.Lock()

    def release(self) -> None:
        """Starts what was held back."""
        with self._lock:
            self.holds_back = False
            for submission_id, variables in self._pending.items():
                self._start(submission_id, variables)
            self._pending.clear()

    def signal(self, submission_id: str, number: signal.Signals) -> None:
        """Sends a signal to the process of a job."""
        pid = self.processes[submission_id].pid
        assert pid is not None
        os.kill(pid, number)

    def running(self) -> set[str]:
        """The jobs that are not over."""
        with self._lock:
            return {name for name, process in self.processes.items() if process.is_alive()} | set(self._pending)

    def close(self) -> None:
        """Ends every process."""
        for process in self.processes.values():
            process.kill()
            process.join()
            process.close()

    def answer(self, method: str, path: str, shown: str | None, body: bytes) -> tuple[int, object] | None:
        """What Ray's dashboard answers; None closes the connection."""
        if self.is_away:
            return None
        if self.token is not None and shown != f"Bearer {self.token}":
            return (401, "Unauthorized") if shown is None else (403, "Forbidden")
        with self._lock:
            match method, path.strip("/").split("/"):
                case "GET", ["api", "version"]:
                    return 200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
                case "GET", ["api", "jobs"]:
                    return 200, [self._details(name) for name in [*self.processes, *self._pending]]
                case "POST", ["api", "jobs"]:
                    return self._submit(json.loads(body))
                case "POST", ["api", "jobs", name, "stop"]:
                    return 200, {"stopped": self._stop(name)}
                case "GET", ["api", "jobs", name, "logs"]:
                    return 200, {"logs": f"what {name} printed\n"}
        return 404, {}

    def _submit(self, request: dict[str, object]) -> tuple[int, object] | None:
        name = str(request["submission_id"])
        self.submitted.append(request)
        if name in self.processes or name in self._pending:
            return 500, f"Job with submission_id {name} already exists"
        runtime_env = request["runtime_env"]
        assert isinstance(runtime_env, dict)
        variables = _TEXTS.validate_python(runtime_env["env_vars"])
        self.metadata[name] = request["metadata"]
        if self.holds_back:
            self._pending[name] = variables
        else:
            self._start(name, variables)
        if self.lost_replies:
            self.lost_replies -= 1
            return None
        return 200, {"job_id": name, "submission_id": name}

    def _start(self, name: str, variables: dict[str, str]) -> None:
        self.processes[name] = started(self.work, self._environment | variables)

    def _stop(self, name: str) -> bool:
        """Ends a job that runs, for which Ray takes three seconds; one that is pending goes on, as it does in Ray."""
        self.stops.append(name)
        process = self.processes.get(name)
        if self.stops_nothing or process is None or not process.is_alive():
            return False
        self._stopped.add(name)
        process.kill()
        return True

    def _details(self, name: str) -> dict[str, object]:
        process = self.processes.get(name)
        if process is None:
            status = "PENDING"
        elif process.is_alive():
            status = "RUNNING"
        elif name in self._stopped:
            status = "STOPPED"
        else:
            status = "SUCCEEDED" if process.exitcode == 0 else "FAILED"
        return {"type": "SUBMISSION", "submission_id": name, "status": status, "entrypoint": "", "message": status}


@contextmanager
def ray_stand_in(environment: Mapping[str, str]) -> Iterator[RayStandIn]:
    """One that answers at its own url; its processes are gone afterwards."""
    ray = RayStandIn(environment)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            answer = ray.answer(self.command, self.path, self.headers["Authorization"], body)
            if answer is None:
                self.close_connection = True
                return
            status, document = answer
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_POST = do_GET

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass  # quiet

    with handling(Handler) as url:
        ray.url = url
        try:
            yield ray
        finally:
            ray.is_away = True
            ray.close()
