"""The client of the control plane for workers: one attempt of one job, kept alive while the work goes on.

Two threads speak while the worker computes: one sends heartbeats, the other delivers events and checkpoints from a
spool. While the control plane is away both try again for `OUTAGE_SECONDS` and the work goes on.
"""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import SEEK_END, BufferedIOBase, BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from .attempt_schemas import (
    Assignment,
    AttemptFailure,
    AttemptStatus,
    AttemptSuccess,
    CheckpointRef,
    Heartbeat,
    TicketRedemption,
    WorkerEvent,
    WorkerEvents,
)
from .errors import LeaseLost, ProblemError, UnreachableError
from .schemas import ArchitectureRecord, CalibrationRecord, JsonObject, Progress, Reason, Schema
from .transport import FileBody, build_post, connect, parsed, parsed_document, receive, send

OUTAGE_SECONDS = 30 * 60.0  # longer without the control plane, and the attempt ends itself
PROGRESS_SECONDS = 1.0  # between heartbeats that carry new progress
TIMEOUT_SECONDS = 30.0
BYTES_PER_SECOND = 5e5  # of a store that is slow: a large blob is waited for longer, while the service hands it on
EVENTS_PER_BATCH = 1000  # the contract's limit

_Answer = TypeVar("_Answer")


class _ClosedError(Exception):
    """Ends a thread of a closed attempt."""


@dataclass(frozen=True)
class _Checkpoint:
    """A resumable state that waits to be delivered."""

    file: BufferedIOBase
    sha256: str
    size: int
    progress: Progress


class AttemptClient:
    """One attempt of a job; a context manager that sends heartbeats and delivers what is spooled while it is open.

    An attempt has one open client at a time. Its events are numbered from 0: a client that follows another goes on with
    the `next_event` of that one as its `first_event`.
    `devices` are the GPUs that the worker holds, or 1 without any; none while it waits for them.
    `traceparent` is that of the span that its requests belong to, as W3C Trace Context has it.
    Once the lease is lost, every method raises LeaseLost and nothing more is sent.
    """

    def __init__(
        self,
        url: str,
        submission_id: str,
        *,
        token: str,
        heartbeat_seconds: float,
        devices: int | None = None,
        first_event: int = 0,
        traceparent: str | None = None,
        outage_seconds: float = OUTAGE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = connect(url, timeout=TIMEOUT_SECONDS, token=token, traceparent=traceparent, transport=transport)
        self._path = f"attempts/{submission_id}"
        self._heartbeat_seconds = heartbeat_seconds
        self._devices = devices
        self._outage_seconds = outage_seconds
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,), name=f"attempt {name}", daemon=True)
            for name, step in (("heartbeat", self._beat), ("delivery", self._deliver))
        ]
        self._changed = threading.Condition()  # guards everything below
        self._progress: Progress | None = None  # not yet sent
        self._beaten_at = time.monotonic()
        self._events: list[WorkerEvent] = []  # not yet sent, in order
        self._next_event = first_event
        self._checkpoint: _Checkpoint | None = None  # not yet sent
        self._delivering = False
        self._stop = False
        self._failure: Exception | None = None  # why nothing more may be sent
        self._closed = False

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        for thread in self._threads:
            thread.join()
        if self._checkpoint is not None:
            self._checkpoint.file.close()
        self._http.close()

    @property
    def should_stop(self) -> bool:
        """Whether to stop: the job was cancelled or paused (call `stopped`), or nothing may be written any more."""
        return self._stop or self._failure is not None

    @property
    def waiting(self) -> int:
        """How many events and checkpoints are spooled and not yet being delivered."""
        return len(self._events) + (self._checkpoint is not None)

    @property
    def next_event(self) -> int:
        """The number of the next event."""
        return self._next_event

    def progress(self, progress: Progress) -> None:
        """Sends where the job is within a second; only the latest counts."""
        with self._changed:
            self._raise_if_ended()
            self._progress = progress
            self._changed.notify_all()

    def event(self, kind: str, data: JsonObject) -> None:
        """Spools one event; each is delivered once and in order."""
        with self._changed:
            self._raise_if_ended()
            self._events.append(WorkerEvent(worker_sequence=self._next_event, kind=kind, data=data))
            self._next_event += 1
            self._changed.notify_all()

    def checkpoint(self, path: Path, progress: Progress) -> None:
        """Spools a resumable state; it replaces an older one that still waits to be delivered.

        The file is opened before this returns, so that its name may go.
        """
        file = path.open("rb")
        sha256, size = _digest(file)
        with self._changed:
            replaced, self._checkpoint = self._checkpoint, _Checkpoint(file, sha256, size, progress)
            if replaced is not None:
                replaced.file.close()
            self._raise_if_ended()
            self._changed.notify_all()

    def upload(self, data: bytes) -> tuple[str, int]:
        """The (sha256, size) under which the data is now stored."""
        file = BytesIO(data)
        sha256, size = _digest(file)
        self._put(file, sha256, size)
        return sha256, size

    def download(self, sha256: str) -> bytes:
        """The bytes of a blob; raises as `checkpoint_file` does."""
        file = BytesIO()
        self._receive(sha256, file, TIMEOUT_SECONDS)
        return file.getvalue()

    @contextmanager
    def checkpoint_file(self, checkpoint: CheckpointRef) -> Iterator[BufferedIOBase]:
        """A checkpoint as a file at its beginning, which has no name: it goes when it is closed.

        Raises:
            CorruptArtifactError: what arrived is not of this digest.
            ProblemError: the store has no such blob (404), or other bytes in its place (410).
            StoreError: the store that the service linked to did not hand it out.
        """
        with tempfile.TemporaryFile() as file:
            self._receive(checkpoint.sha256, file, _timeout(checkpoint.size))
            file.seek(0)
            yield file

    def latency_table(self, table_id: str) -> JsonObject:
        """The document of a latency table."""
        return parsed_document(self._get(f"latency-tables/{table_id}"))

    def calibration(self, table_id: str) -> JsonObject | None:
        """The correction of a table's sums, if it has one."""
        return parsed(CalibrationRecord, self._get(f"latency-tables/{table_id}/calibration")).calibration

    def architecture(self, architecture_id: str) -> JsonObject:
        """The document of an architecture."""
        return parsed(ArchitectureRecord, self._get(f"architectures/{architecture_id}")).document

    def succeed(self, success: AttemptSuccess) -> None:
        """Ends the job with everything that it made, after what is spooled was delivered."""
        self._flush()
        self._finish("succeed", success)

    def fail(self, reason: Reason) -> None:
        """Ends the attempt with a reason, after what is spooled was delivered, or although it was refused."""
        with suppress(ProblemError):
            self._flush()
        with self._changed:
            if isinstance(self._failure, ProblemError):
                self._failure = None
        self._finish("fail", AttemptFailure(reason=reason))

    def stopped(self) -> None:
        """Ends the attempt as was asked, after what is spooled was delivered: the job is cancelled, or paused."""
        self._flush()
        self._finish("stopped")

    def _repeat(self, step: Callable[[], None]) -> None:
        """Runs a thread's step until the attempt ends; what it raises is raised again by the worker's next call."""
        try:
            while True:
                step()
        except _ClosedError:
            return
        except Exception as error:  # noqa: BLE001 - carried to the thread that computes
            self._end(error)

    def _beat(self) -> None:
        """Waits until a heartbeat is due, because time has passed or progress was made, and sends it."""
        with self._changed:
            self._raise_if_ended()
            while (seconds := self._seconds_to_heartbeat()) > 0:
                self._changed.wait(seconds)
                self._raise_if_ended()
            progress, self._progress = self._progress, None
        self._note(self._post("heartbeat", Heartbeat(progress=progress, devices=self._devices)))
        with self._changed:
            self._beaten_at = time.monotonic()

    def _seconds_to_heartbeat(self) -> float:
        interval = self._heartbeat_seconds if self._progress is None else min(PROGRESS_SECONDS, self._heartbeat_seconds)
        return self._beaten_at + interval - time.monotonic()

    def _deliver(self) -> None:
        """Waits until something is spooled and delivers it: first the events, then the checkpoint."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._checkpoint or self._has_ended())
            self._raise_if_ended()
            events, self._events = self._events, []
            checkpoint, self._checkpoint = self._checkpoint, None
            self._delivering = True
        for start in range(0, len(events), EVENTS_PER_BATCH):
            self._note(self._post("events", WorkerEvents(items=events[start : start + EVENTS_PER_BATCH])))
        if checkpoint is not None:
            with checkpoint.file:
                self._put(checkpoint.file, checkpoint.sha256, checkpoint.size)
            reference = CheckpointRef(sha256=checkpoint.sha256, size=checkpoint.size, progress=checkpoint.progress)
            self._note(self._post("checkpoint", reference))
        with self._changed:
            self._delivering = False
            self._changed.notify_all()

    def _flush(self) -> None:
        """Returns once everything spooled was delivered."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._has_ended() or not (self._events or self._checkpoint or self._delivering)
            )
            self._raise_if_ended()

    def _finish(self, action: str, body: Schema | None = None) -> None:
        self._post(action, body)
        self._close()

    def _note(self, answer: httpx.Response) -> None:
        if parsed(AttemptStatus, answer).stop:
            self._stop = True

    def _put(self, file: BufferedIOBase, sha256: str, size: int) -> None:
        headers = {"Content-Length": str(size)}
        self._send(
            self._http.build_request(
                "PUT", f"blobs/{sha256}", content=FileBody(file), headers=headers, timeout=_timeout(size)
            )
        )

    def _receive(self, sha256: str, file: BufferedIOBase, timeout: float | httpx.Timeout) -> None:
        self._raising(
            lambda: receive(
                self._http, sha256, file, timeout=timeout, patience_seconds=self._outage_seconds, sleep=self._pause
            )
        )

    def _get(self, path: str) -> httpx.Response:
        return self._send(self._http.build_request("GET", path))

    def _post(self, action: str, body: Schema | None = None) -> httpx.Response:
        return self._send(build_post(self._http, f"{self._path}/{action}", body))

    def _send(self, request: httpx.Request) -> httpx.Response:
        return self._raising(
            lambda: send(self._http, request, patience_seconds=self._outage_seconds, sleep=self._pause)
        )

    def _raising(self, exchange: Callable[[], _Answer]) -> _Answer:
        """What an exchange with the control plane returns; once the lease is lost or patience is over, the end."""
        with self._changed:
            self._raise_if_ended()
        try:
            return exchange()
        except ProblemError as error:
            lost = _lost_lease(error)
            if lost is None:
                raise
            self._end(lost)
            raise lost from error
        except UnreachableError as error:
            self._end(error)
            raise

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(self._has_ended, seconds)
            self._raise_if_ended()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _end(self, failure: Exception) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _has_ended(self) -> bool:
        return self._closed or self._failure is not None

    def _raise_if_ended(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise _ClosedError("the attempt is closed")


def redeem(
    url: str,
    submission_id: str,
    ticket: str,
    *,
    traceparent: str | None = None,
    transport: httpx.BaseTransport | None = None,
) -> tuple[Assignment, AttemptClient]:
    """What to do, and the attempt's client, for the ticket, which works once; LeaseLost where it is spent."""
    with connect(url, timeout=TIMEOUT_SECONDS, traceparent=traceparent, transport=transport) as http:
        request = build_post(http, f"attempts/{submission_id}/redeem", TicketRedemption(ticket=ticket))
        try:
            answer = send(http, request, patience_seconds=OUTAGE_SECONDS)
        except ProblemError as error:
            raise _lost_lease(error) or error from None
    assignment = parsed(Assignment, answer)
    attempt = AttemptClient(
        url,
        submission_id,
        token=assignment.token,
        heartbeat_seconds=assignment.heartbeat_seconds,
        traceparent=traceparent,
        transport=transport,
    )
    return assignment, attempt


def _digest(file: BufferedIOBase) -> tuple[str, int]:
    """The sha256 and the size of a file."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest(), file.seek(0, SEEK_END)


def _timeout(size: int) -> httpx.Timeout:
    """Of a blob's request: the service takes what it is sent at once, and answers once the store has done its part."""
    return httpx.Timeout(TIMEOUT_SECONDS, read=TIMEOUT_SECONDS + size / BYTES_PER_SECOND)


def _lost_lease(error: ProblemError) -> LeaseLost | None:
    return LeaseLost(error.problem.detail) if error.status == 409 else None
