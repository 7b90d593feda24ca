"""What can go wrong between a client and the control plane, each with a message that says what to do.

Every error can be pickled: Ray carries those of workers from process to process.
"""

from http import HTTPStatus

from .schemas import Problem


class FasterSegError(Exception):
    """`retry_after_seconds` is how long to wait before asking again; None: asking again would not help."""

    retry_after_seconds: float | None = None


class UnreachableError(FasterSegError):
    """Nothing answered at the address."""

    retry_after_seconds = 0.0

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)

    def __str__(self) -> str:
        address, cause = self.args
        return (
            f"cannot reach the FasterSeg service at {address} ({cause}); "
            "start it with `fasterseg up`, or name another address with --url or FASTERSEG_URL"
        )


class ProblemError(FasterSegError):
    """The service refused a request; the text names every refused field, and the request where the service failed."""

    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem, retry_after_seconds)
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        fields = [f"{error.field}: {error.message}" for error in self.problem.errors]
        unsaid = "".join(f"\n  {field}" for field in fields if field not in self.problem.detail)
        logged = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and self.problem.request_id is not None
        request = f" (request {self.problem.request_id})" if logged else ""
        return f"{self.status} {self.problem.title}: {self.problem.detail}{unsaid}{request}"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class UnexpectedAnswerError(FasterSegError):
    """Something answered, but not in the words of this version of the contract."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)

    def __str__(self) -> str:
        address, cause = self.args
        return f"{address} did not answer as a FasterSeg service of this client's version does: {cause}"


class StoreError(FasterSegError):
    """The store that the service links to did not hand out a blob; `code` is S3's word for it, None where none came."""

    def __init__(
        self, address: str, cause: str, code: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(address, cause, code, retry_after_seconds)
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        address, cause, *_ = self.args
        return (
            f"the store at {address} did not hand out what the service links to ({cause}); the control plane's "
            "FASTERSEG_S3_PUBLIC_URL, or FASTERSEG_S3_WORKER_URL for workers, must be its address"
        )


class CorruptArtifactError(FasterSegError):
    """Bytes that do not have the digest they were asked for by."""

    def __init__(self, sha256: str, received: str) -> None:
        super().__init__(sha256, received)

    def __str__(self) -> str:
        sha256, received = self.args
        return (
            f"artifact {sha256} arrived with sha256 {received}; nothing of it was kept: ask again, and where that ends "
            "alike, the store's copy is damaged"
        )


class LeaseLost(FasterSegError):
    """The attempt no longer owns its job: another one does, or the job has ended. It must write nothing more."""
