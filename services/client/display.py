"""Jobs as tables for people to read, and labelled values as a table."""

import json
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .progress import status
from .schemas import Job, JsonObject, ProjectRecord, shown_hours

STATE_LENGTH = 100  # in a list; `show` has the whole reason of a failure


def job_table(jobs: Iterable[Job]) -> Table:
    """One row for each job."""
    table = Table(box=None, pad_edge=False)
    for column in ("ID", "KIND", "NAME", "CREATED"):
        table.add_column(column, no_wrap=True)
    table.add_column("STATE", overflow="fold")
    for job in jobs:
        state = status(job)
        state = state if len(state) <= STATE_LENGTH else f"{state[: STATE_LENGTH - 4]} ..."
        values = (job.id, job.kind, job.name or "", f"{job.created_at:%Y-%m-%d %H:%M}", state)
        table.add_row(*(Text(value) for value in values))
    return table


def job_details(job: Job) -> RenderableType:
    """Everything about one job, ready to print."""
    return Group(labelled(_rows(job)), specification(job.spec))


def labelled(values: Iterable[tuple[str, str]]) -> Table:
    """One row for each value, its label before it."""
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for label, value in values:
        rows.add_row(Text(label), Text(value))
    return rows


def project_hours(project: ProjectRecord) -> str:
    """What a project has used, and has left."""
    if project.max_hours is None or project.left_hours is None:
        return f"{shown_hours(project.used_hours)} used, no limit"
    used, most, left = map(shown_hours, (project.used_hours, project.max_hours, project.left_hours))
    return f"{used} of {most} used, {left} left"


def specification(spec: JsonObject) -> Text:
    """A job's complete configuration."""
    return Text(f"spec\n{json.dumps(spec, indent=2)}")


def _rows(job: Job) -> Iterable[tuple[str, str]]:
    yield "id", job.id
    yield "kind", job.kind
    yield "name", job.name or ""
    yield "state", status(job)
    yield "attempts", str(job.epoch)
    yield "priority", str(job.priority)
    yield (
        "used hours",
        shown_hours(job.used_hours) + ("" if job.max_hours is None else f" of {shown_hours(job.max_hours)}"),
    )
    if job.deadline is not None:
        yield "deadline", f"{job.deadline:%Y-%m-%d %H:%M:%S %Z}"
    yield "after", " ".join(job.after)
    yield "ray job", job.ray_submission_id or ""
    yield "created", f"{job.created_at:%Y-%m-%d %H:%M:%S %Z}"
    yield "created by", job.created_by or "unknown"
    if job.started_at is not None:
        yield "started", f"{job.started_at:%Y-%m-%d %H:%M:%S %Z}"
    if job.finished_at is not None:
        yield "finished", f"{job.finished_at:%Y-%m-%d %H:%M:%S %Z}"
    if job.reason is not None:
        yield job.reason.failure, job.reason.message
    for name, input_id in job.inputs.model_dump(exclude_none=True).items():
        yield f"input {name}", input_id
    if job.latency_table is not None:
        yield "latency table", job.latency_table
    for role, architecture_id in job.architectures.items():
        yield f"architecture {role}", architecture_id
    for artifact in job.artifacts:
        yield artifact.name, f"{artifact.sha256}  {artifact.size} bytes"
    if job.result is not None:
        yield "result", json.dumps(job.result)
