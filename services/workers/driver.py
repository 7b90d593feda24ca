"""The driver of an attempt's Ray job: redeems the ticket, reserves what the job needs, runs it in one Ray task.

The driver redeems, because only then is the job's kind known, and because it keeps the lease while the cluster is busy.
The assignment goes on to the task as an argument, through Ray's memory: no list of Ray's shows it.
"""

import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from services.client.attempt import AttemptClient, redeem
from services.client.attempt_schemas import Assignment
from services.client.errors import LeaseLost
from services.client.schemas import FailureClass, JobKind, Progress, Reason
from services.telemetry.logs import attempt_fields, start_logging, trace_fields
from services.telemetry.settings import open_traces
from services.workers.room import wait_for_room
from services.workers.settings import Settings

if TYPE_CHECKING:
    from services.telemetry.traces import Traces

MEASURING = (JobKind.PROFILE, JobKind.EXPORT)
GPU_ENGINES = ("tensorrt", "torch_cuda")
PROFILER = 0.9  # of a node's one: a single job measures at a time, and the Serve app keeps its share
POLL_SECONDS = 1.0
RAYS_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # the variable in which Ray tells a driver of its job

FINISHED = 0
UNREPORTED = 1

_log = logging.getLogger(__name__)


def drive(settings: Settings) -> int:
    """Runs an attempt to its end and returns the exit code, which is not 0 where that end could not be reported."""
    _start_logging(settings)
    traces = open_traces(settings.otlp_endpoint, "worker")
    if traces is None:
        return _drive(settings, None)
    with traces, traces.span("attempt", settings.traceparent, _fields(settings)) as span:
        return _drive(settings.model_copy(update={"traceparent": span.traceparent}), traces)


def needed_resources(assignment: Assignment, cpus: int, cluster: dict[str, float]) -> dict[str, float]:
    """What a job reserves: cores; the profiler where it measures, one at a time; a GPU where it can use one."""
    gpu = {"GPU": 1.0} if cluster.get("GPU") else {}
    if assignment.kind not in MEASURING:
        return {"CPU": cpus, **gpu}
    on_gpu = assignment.spec["engine"] in GPU_ENGINES
    return {"CPU": cpus, "profiler": PROFILER, **(gpu if on_gpu else {})}


def held_devices(resources: dict[str, float]) -> int:
    """What a job's hours are multiplied by: its GPUs, or 1 without any."""
    return int(resources.get("GPU", 1))


def _drive(settings: Settings, traces: "Traces | None") -> int:
    try:
        assignment, waiting = redeem(
            settings.control_plane_url, settings.submission_id, settings.ticket, traceparent=settings.traceparent
        )
        _join_cluster()
        resources = needed_resources(assignment, settings.job_cpus, ray.cluster_resources())
        _log.info("begun", extra={"kind": assignment.kind.value, "needs": resources})
        with waiting, _span(traces, "wait for a machine", settings):
            group = _reserve(resources, waiting)
            if group is None:
                waiting.stopped()
                return FINISHED
        return _run(assignment, settings, group, resources, waiting.next_event)
    except LeaseLost as error:
        _log.warning("lease lost", extra={"error": str(error)})
        return FINISHED


def _join_cluster() -> None:
    """Joins as a job whose tasks do not inherit what this process was told, the ticket among it.

    Ray keeps processes ready for tasks without variables of their own; for others it starts one, which takes a second.
    """
    if RAYS_JOB in os.environ:
        os.environ[RAYS_JOB] = json.dumps({**json.loads(os.environ[RAYS_JOB]), "runtime_env": {}})
    ray.init(address="auto", logging_level=logging.WARNING)


def _span(traces: "Traces | None", name: str, settings: Settings) -> AbstractContextManager[object]:
    return nullcontext() if traces is None else traces.span(name, settings.traceparent, _fields(settings))


def _start_logging(settings: Settings) -> None:
    start_logging(settings.log_format, settings.log_level, **_fields(settings), **trace_fields(settings.traceparent))


def _fields(settings: Settings) -> dict[str, object]:
    return attempt_fields(settings.submission_id)


def _reserve(resources: dict[str, float], attempt: AttemptClient) -> PlacementGroup | None:
    """The placement group, once the cluster has room for it; none where the job is to stop meanwhile."""
    attempt.progress(Progress(phase="waiting for a machine", epoch=0, epochs=0, step=0, steps=0, fraction=0.0))
    group: PlacementGroup = placement_group([resources])
    is_placed = wait_for_room(resources, lambda: bool(group.wait(POLL_SECONDS)), _nodes, attempt)
    return group if is_placed else None


def _nodes() -> list[dict[str, float]]:
    """What each node that lives has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _run(
    assignment: Assignment, settings: Settings, group: PlacementGroup, resources: dict[str, float], first_event: int
) -> int:
    task = ray.remote(_attempt).options(
        name=f"{assignment.kind} {settings.submission_id}",
        max_retries=0,
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU", 0),
        resources={name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")},
        scheduling_strategy=PlacementGroupSchedulingStrategy(group),
    )
    try:
        ray.get(task.remote(assignment, settings, held_devices(resources), first_event))
    except RayTaskError as error:  # it could not report
        _log.error("the end was not reported", extra={"error": str(error)})
        return UNREPORTED
    except RayError as error:  # the task's process is gone
        with _client(assignment, settings, held_devices(resources), first_event) as attempt:
            attempt.fail(_reason(error))
    return FINISHED


def _attempt(assignment: Assignment, settings: Settings, devices: int, first_event: int) -> None:
    """The Ray task."""
    from services.workers.execution import execute  # brings torch, which the driver does not need
    from services.workers.job import Job
    from services.workers.metering import Meter, MeteredAttempt, device_name
    from services.workers.metrics import JobMetrics
    from services.workers.stages import Stages

    _start_logging(settings)
    traces = open_traces(settings.otlp_endpoint, "worker")
    job = Job(
        kind=assignment.kind,
        metrics=JobMetrics(assignment.job, assignment.kind),
        spec=assignment.spec,
        inputs=assignment.inputs,
        checkpoints=assignment.checkpoints,
        data_root=settings.data_root,
        data_memory_mb=settings.data_memory_mb,
        tensorboard=settings.tensorboard_dir and settings.tensorboard_dir / f"{assignment.kind}-{assignment.job}",
        lock_dir=settings.lock_dir,
        cpus=settings.job_cpus,
    )
    device = device_name(job.device, job.cpus)
    _log.info("working", extra={"device": device})
    with (
        nullcontext() if traces is None else traces,
        MeteredAttempt(
            settings.control_plane_url,
            settings.submission_id,
            token=assignment.token,
            heartbeat_seconds=assignment.heartbeat_seconds,
            device=device,
            devices=devices,
            first_event=first_event,
            traceparent=settings.traceparent,
            meter=Meter(),
            stages=Stages(traces, settings.traceparent, _fields(settings)),
        ) as attempt,
    ):
        execute(job, attempt)


def _client(assignment: Assignment, settings: Settings, devices: int, first_event: int) -> AttemptClient:
    return AttemptClient(
        settings.control_plane_url,
        settings.submission_id,
        token=assignment.token,
        heartbeat_seconds=assignment.heartbeat_seconds,
        devices=devices,
        first_event=first_event,
        traceparent=settings.traceparent,
    )


def _reason(error: RayError) -> Reason:
    failure = FailureClass.OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else FailureClass.INFRASTRUCTURE
    return Reason(failure=failure, message=f"the worker's process ended: {error}"[:4000])
