"""Ray's Jobs API: one Ray job per attempt, under the attempt's id. The only module that imports Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx

from services.storage.attempts import Dispatch
from services.storage.errors import Unavailable
from services.telemetry.logs import attempt_fields

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient
    from requests import Response

TIMEOUT_SECONDS = 15.0

_Answer = TypeVar("_Answer")


class RayState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_over(self) -> bool:
        """Whether the job's process has ended."""
        return self in (RayState.STOPPED, RayState.SUCCEEDED, RayState.FAILED)


@dataclass(frozen=True)
class RayJob:
    """What Ray says of a job, which is an input and never the truth."""

    state: RayState
    message: str = ""


class RayJobs(Protocol):
    """Starts, lists and stops Ray jobs. Every method raises Unavailable where Ray does not answer."""

    def submit(self, dispatch: Dispatch) -> None:
        """Starts the attempt's job; a job that is there already stays as it is."""
        ...

    def list_jobs(self) -> dict[str, RayJob]:
        """Every submitted job by its submission id."""
        ...

    def stop(self, submission_id: str) -> None:
        """Asks a job to end; one that is pending goes on."""
        ...

    def logs(self, submission_id: str) -> str:
        """What a job has printed so far."""
        ...

    def check(self) -> None:
        """Asks Ray for a sign of life."""
        ...


class RayCluster:
    """The jobs of a Ray cluster behind its dashboard's address; connected at the first call."""

    def __init__(self, *, address: str, token_path: Path | None, worker_command: str, worker_url: str) -> None:
        self._address = address
        self._token_path = token_path
        self._worker_command = worker_command
        self._worker_url = worker_url
        self._client: JobSubmissionClient | None = None

    def submit(self, dispatch: Dispatch) -> None:
        """See RayJobs. The driver asks for no CPU, so that it always starts; it reserves what the job needs itself."""
        if dispatch.submission_id in self.list_jobs():
            return
        environment = {
            "FASTERSEG_CONTROL_PLANE_URL": self._worker_url,
            "FASTERSEG_SUBMISSION_ID": dispatch.submission_id,
            "FASTERSEG_TICKET": dispatch.ticket,
        }
        if dispatch.traceparent is not None:
            environment["FASTERSEG_TRACEPARENT"] = dispatch.traceparent
        self._ask(
            lambda client: client.submit_job(
                entrypoint=self._worker_command,
                submission_id=dispatch.submission_id,
                entrypoint_num_cpus=0,
                runtime_env={"env_vars": environment},
                metadata=_metadata(dispatch),
            )
        )

    def list_jobs(self) -> dict[str, RayJob]:
        """See RayJobs."""
        details = self._ask(lambda client: client.list_jobs())
        return {
            job.submission_id: RayJob(RayState(job.status.value), job.message or "")
            for job in details
            if job.submission_id is not None
        }

    def stop(self, submission_id: str) -> None:
        """See RayJobs."""
        self._ask(lambda client: client.stop_job(submission_id))

    def logs(self, submission_id: str) -> str:
        """See RayJobs."""
        return self._ask(lambda client: client.get_job_logs(submission_id))

    def check(self) -> None:
        """See RayJobs."""
        self._ask(lambda client: client.get_version())

    def _ask(self, question: Callable[["JobSubmissionClient"], _Answer]) -> _Answer:
        from ray.exceptions import AuthenticationError

        try:
            client = self._client
            if client is None:  # looked at once: a refusal of another thread may take it away
                client = self._client = self._connect()
            return question(client)
        except AuthenticationError as error:
            self._client = None  # connect anew: the token may have changed
            raise Unavailable(
                f"Ray at {self._address} refused: {_first_line(error)}; "
                "the file that FASTERSEG_RAY_TOKEN_PATH names must hold the token that Ray was started with"
            ) from error
        except (OSError, RuntimeError, httpx.HTTPError) as error:  # what Ray's client raises, and ours
            self._client = None
            raise Unavailable(f"Ray does not answer at {self._address}: {_first_line(error)}") from error

    def _connect(self) -> "JobSubmissionClient":
        from ray.job_submission import JobSubmissionClient

        class BoundedClient(JobSubmissionClient):
            """Ray's own waits for an answer without end."""

            def _do_request(
                self,
                method: str,
                endpoint: str,
                *,
                data: bytes | None = None,
                json_data: dict[str, object] | None = None,
                **options: object,
            ) -> "Response":
                return super()._do_request(
                    method, endpoint, data=data, json_data=json_data, timeout=TIMEOUT_SECONDS, **options
                )

        headers = {}
        if self._token_path is not None:
            headers["Authorization"] = f"Bearer {self._token_path.read_text().strip()}"
        client = BoundedClient(self._address, headers=headers)
        self._refuse_open_head()
        return client

    def _refuse_open_head(self) -> None:
        """Whoever reaches an open Ray runs code on its nodes, as whom our jobs run: nothing is handed to it."""
        if httpx.get(f"{self._address}/api/version", timeout=TIMEOUT_SECONDS).is_success:
            raise Unavailable(
                f"Ray at {self._address} lets in everyone, so nothing is started there: start it with "
                "RAY_AUTH_MODE=token and a token, and put that into the file that FASTERSEG_RAY_TOKEN_PATH names"
            )


def _metadata(dispatch: Dispatch) -> dict[str, str]:
    """What Ray's dashboard and job list tell of a job. It is fixed: Ray's API changes nothing of what was submitted."""
    attempt = {name: str(value) for name, value in attempt_fields(dispatch.submission_id).items()}
    return attempt | {
        "kind": dispatch.kind.value,
        "project": dispatch.project,
        "job_name": dispatch.name or dispatch.job,
        "user": dispatch.user or "unknown",
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
