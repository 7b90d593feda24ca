"""Submissions: everything that can be known to be wrong is said before a job is accepted."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from fasterseg_core.config import (
    NUM_CLASSES,
    DatasetName,
    EvaluateConfig,
    ExportConfig,
    JobConfig,
    ProfileConfig,
    RetrainConfig,
    Role,
    SearchConfig,
)
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from fasterseg_core.presets import PAPER, QUICK
from fasterseg_core.search_space import Resolution
from services.client import schemas
from services.client.schemas import JobKind, JobState, JobSubmission, JsonObject, Preset
from services.storage.database import database_now
from services.storage.documents import find_architecture, find_latency_table, parse_latency_table
from services.storage.errors import Conflict, InvalidRequest, NotFound
from services.storage.jobs import HOW_IT_ENDED, NewJob, find_job, insert_job, locked_job, submitted_before
from services.storage.projects import project_of
from services.storage.tables import JobRow
from services.storage.views import show_job
from services.telemetry.requests import traceparent

_SPECS: dict[JobKind, TypeAdapter[JobConfig]] = {
    JobKind.PROFILE: TypeAdapter(ProfileConfig),
    JobKind.SEARCH: TypeAdapter(SearchConfig),
    JobKind.RETRAIN: TypeAdapter(RetrainConfig),
    JobKind.EVALUATE: TypeAdapter(EvaluateConfig),
    JobKind.EXPORT: TypeAdapter(ExportConfig),
}

PRESETS: dict[Preset, dict[str, JobConfig]] = {Preset.PAPER: PAPER, Preset.QUICK: QUICK}


@dataclass(frozen=True, kw_only=True)
class KnownTable:
    """What is known of a latency table before it may be measured."""

    origin: str
    engine: str
    device: str | None  # None before it is measured
    precision: str
    resolution: Resolution
    num_classes: int
    entries: frozenset[OperatorSpec]
    sound_entries: frozenset[OperatorSpec] = frozenset()  # which a profile job that names the table takes over


@dataclass(frozen=True, kw_only=True)
class CheckedSubmission:
    """A submission with nothing wrong, but that rows may be missing from the latency table of a search."""

    config: JobConfig
    spec: JsonObject  # complete
    parents: list[JobRow]
    sources: dict[str, str]  # the parent that each input comes from, unless the submission names it
    table: KnownTable | None
    missing_rows: list[OperatorSpec]


def submit_job(
    session: Session, submission: JobSubmission, idempotency_key: str | None, user: str | None = None
) -> schemas.Job:
    """The accepted job of a user, or the one that the same key made before.

    Raises:
        InvalidRequest: the spec, a reference, an input or the deadline is wrong; `fields` says which.
        Conflict: a job that this one would wait for has failed or was cancelled.
    """
    if idempotency_key is not None:
        earlier = submitted_before(session, project_of(session), submission, idempotency_key)
        if earlier is not None:
            return show_job(session, earlier)
    checked = check_submission(session, submission, locked_job)  # so that no parent fails before it has this child
    if checked.table is not None and checked.missing_rows:
        first, *others = checked.missing_rows
        more = f" and {len(others)} more" if others else ""
        raise InvalidRequest.at("spec.space", f"{checked.table.origin} has no entry for {first.key!r}{more}")
    new = NewJob(
        submission=submission,
        spec=checked.spec,
        sources=checked.sources,
        idempotency_key=idempotency_key,
        project=project_of(session),
        user=user,
        traceparent=traceparent(),
    )
    return show_job(session, insert_job(session, new))


def check_submission(
    session: Session, submission: JobSubmission, find: Callable[[Session, str], JobRow]
) -> CheckedSubmission:
    """What a submission asks for, its parents found by `find`; refused as by `submit_job`, but for missing rows."""
    if submission.deadline is not None and submission.deadline <= database_now(session):
        raise InvalidRequest.at("deadline", "has passed: name a later one")
    config = parse_spec(submission.kind, submission.spec, submission.preset)
    parents = _parents(session, submission.after, find)
    sources = _sources(submission, config, parents)
    table = _check_inputs(session, submission, config, sources)
    return CheckedSubmission(
        config=config,
        spec=_SPECS[submission.kind].dump_python(config, mode="json"),
        parents=parents,
        sources=sources,
        table=table,
        missing_rows=_missing_rows(config, table),
    )


def parse_spec(kind: JobKind, spec: JsonObject, preset: Preset = Preset.PAPER) -> JobConfig:
    """The configuration of a kind: the preset's, changed where the spec says so; InvalidRequest names wrong fields."""
    start = _SPECS[kind].dump_python(PRESETS[preset][kind], mode="json")
    try:
        return _SPECS[kind].validate_json(json.dumps(_merged(start, spec)), strict=True, extra="forbid")
    except ValidationError as error:
        raise InvalidRequest.below("spec", error) from error


def _merged(start: JsonObject, changes: JsonObject) -> JsonObject:
    """Nested objects are merged field by field, everything else is replaced."""
    merged = dict(start)
    for name, value in changes.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _parents(session: Session, after: list[str], find: Callable[[Session, str], JobRow]) -> list[JobRow]:
    """The jobs in `after`, in the order of their submission."""
    if len(set(after)) < len(after):
        raise InvalidRequest.at("after", "names a job twice")
    known = session.execute(select(JobRow.id, JobRow.number).where(JobRow.id.in_(after)))
    numbers = dict(known.all())
    parents = []
    for job_id in sorted(after, key=lambda job_id: numbers.get(job_id, 0)):  # one order for all who lock several jobs
        try:
            parents.append(find(session, job_id))
        except NotFound as error:
            raise InvalidRequest.at(f"after.{after.index(job_id)}", error.detail) from error
    for parent in parents:
        if parent.state in (JobState.FAILED, JobState.CANCELLED):
            raise Conflict(f"job {parent.id} in `after` {HOW_IT_ENDED[parent.state]}, so this one could never run")
    return parents


# ---- which job each input comes from --------------------------------------------------------------------------------


def _sources(submission: JobSubmission, spec: JobConfig, parents: list[JobRow]) -> dict[str, str]:
    """The parent that makes each input which the submission does not name itself."""
    named = submission.inputs.model_dump(exclude_none=True)
    readable = _inputs(spec, parents)
    for name in named:
        if name not in readable:
            raise InvalidRequest.at(f"inputs.{name}", f"this {submission.kind} job reads none")
    sources = {}
    for name, source in readable.items():
        if name in named:
            continue
        if len(source.makers) > 1:
            ids = ", ".join(job.id for job in source.makers)
            each = f"{source.maker}s {ids} all make an input {name}"
            raise InvalidRequest.at("after", f"{each}: name one in inputs.{name}")
        if source.makers:
            sources[name] = source.makers[0].id
        elif source.is_required:
            raise InvalidRequest.at(f"inputs.{name}", f"missing: name one, or a {source.maker} in after")
    return sources


@dataclass(frozen=True)
class _Input:
    """Something that a job reads: the parents that make one, and what such a parent is called."""

    makers: list[JobRow]
    maker: str
    is_required: bool = True


def _inputs(spec: JobConfig, parents: list[JobRow]) -> dict[str, _Input]:
    """What a job reads, by name."""
    profiles = [job for job in parents if job.kind is JobKind.PROFILE]
    searches = [job for job in parents if job.kind is JobKind.SEARCH]
    retrains = [job for job in parents if job.kind is JobKind.RETRAIN]
    match spec:
        case ProfileConfig():  # an earlier table, by name only: jobs of several engines may wait for each other
            return {"latency_table": _Input([], "profile job", is_required=False)}
        case SearchConfig():
            return {"latency_table": _Input(profiles, "profile job")}
        case RetrainConfig(role=Role.TEACHER, pruning=None):
            return {"architecture": _Input(searches, "search job")}
        case RetrainConfig():
            teachers = [job for job in retrains if job.spec["role"] == Role.TEACHER]
            return {
                "architecture": _Input(searches, "search job"),
                "teacher": _Input(teachers, "retrain job of a teacher", is_required=False),
            }
        case EvaluateConfig():
            return {"network": _Input(retrains, "retrain job")}
        case ExportConfig():
            return {
                "network": _Input(retrains, "retrain job"),
                "latency_table": _Input(profiles, "profile job", is_required=False),
            }


# ---- whether the inputs fit -----------------------------------------------------------------------------------------


def _check_inputs(
    session: Session, submission: JobSubmission, spec: JobConfig, sources: dict[str, str]
) -> KnownTable | None:
    """The latency table that the job would read, if any."""
    inputs = submission.inputs
    for name, retrain in (("network", inputs.network), ("teacher", inputs.teacher)):
        if retrain is not None:
            _check_retrain_job(session, f"inputs.{name}", retrain, submission.after)
    if inputs.architecture is not None:
        _check_architecture(session, inputs.architecture)
    table = _table(session, inputs.latency_table, sources.get("latency_table"))
    network = inputs.network or sources.get("network")
    teacher = inputs.teacher or sources.get("teacher")
    match spec:
        case ProfileConfig() if table is not None:
            _check_same("spec.engine", spec.engine, table.engine, table)
            _check_same("spec.precision", spec.precision, table.precision, table)
            _check_resolution(spec.resolution, table)
            _check_num_classes(NUM_CLASSES[spec.dataset], table.num_classes, table.origin)
        case SearchConfig() if table is not None:
            _check_resolution(spec.resolution, table)
            _check_num_classes(NUM_CLASSES[spec.dataset], table.num_classes, table.origin)
        case RetrainConfig() if teacher is not None:
            _check_num_classes(NUM_CLASSES[spec.dataset], _num_classes(session, teacher), f"the teacher, job {teacher}")
        case EvaluateConfig() if network is not None:
            _check_num_classes(NUM_CLASSES[spec.dataset], _num_classes(session, network), f"the network, job {network}")
        case ExportConfig() if table is not None and network is not None:
            _check_resolution(spec.resolution, table)
            if _num_classes(session, network) != table.num_classes:
                message = f"{table.origin} is for {table.num_classes} classes, the network has another number"
                raise InvalidRequest.at("inputs.latency_table", message)
        case _:
            pass
    return table


def _check_retrain_job(session: Session, field: str, job_id: str, after: list[str]) -> None:
    try:
        job = find_job(session, job_id)
    except NotFound as error:
        raise InvalidRequest.at(field, error.detail) from error
    if job.kind is not JobKind.RETRAIN:
        raise InvalidRequest.at(field, f"job {job_id} is a {job.kind} job: name a retrain job")
    if field == "inputs.teacher" and job.spec["role"] != Role.TEACHER:
        raise InvalidRequest.at(field, f"job {job_id} trains a {job.spec['role']}")
    if job.state is not JobState.SUCCEEDED and job_id not in after:
        raise Conflict(f"job {job_id} in {field} is {job.state}: wait for it by naming it in `after`")


def _check_architecture(session: Session, architecture: str) -> None:
    try:
        find_architecture(session, architecture)
    except NotFound as error:
        raise InvalidRequest.at("inputs.architecture", error.detail) from error


def _table(session: Session, table_id: str | None, profile_job: str | None) -> KnownTable | None:
    """The named table, or the one that a profile job made or will make; none where neither is given."""
    if table_id is None and profile_job is not None:
        job = find_job(session, profile_job)
        if job.latency_table is None:
            return _planned_table(job)
        table_id = job.latency_table
    return None if table_id is None else _measured_table(session, table_id)


def _planned_table(job: JobRow) -> KnownTable:
    spec = parse_spec(job.kind, job.spec)
    assert isinstance(spec, ProfileConfig), "a profile job's spec"
    num_classes = NUM_CLASSES[spec.dataset]
    return KnownTable(
        origin=f"the table of profile job {job.id}",
        engine=spec.engine,
        device=None,
        precision=spec.precision,
        resolution=spec.resolution,
        num_classes=num_classes,
        entries=frozenset(space_specs(spec.space, spec.resolution, num_classes) if spec.parts == 1 else ()),
    )


def _measured_table(session: Session, table_id: str) -> KnownTable:
    try:
        table = parse_latency_table(find_latency_table(session, table_id))
    except NotFound as error:
        raise InvalidRequest.at("inputs.latency_table", error.detail) from error
    return KnownTable(
        origin=f"latency table {table_id[:12]}",
        engine=table.fingerprint.engine,
        device=table.fingerprint.device,
        precision=table.fingerprint.precision,
        resolution=table.fingerprint.resolution,
        num_classes=table.fingerprint.num_classes,
        entries=frozenset(table.rows) - frozenset(table.missing(table.rows)),
        sound_entries=frozenset(spec for spec, row in table.rows.items() if row.is_sound),
    )


def _num_classes(session: Session, retrain_job: str) -> int:
    return NUM_CLASSES[DatasetName(str(find_job(session, retrain_job).spec["dataset"]))]


def _check_resolution(wanted: Resolution, table: KnownTable) -> None:
    found = table.resolution
    _check_same("spec.resolution", f"{wanted.height}x{wanted.width}", f"{found.height}x{found.width}", table)


def _check_same(field: str, wanted: str, found: str, table: KnownTable) -> None:
    if wanted != found:
        raise InvalidRequest.at(field, f"{wanted} is not the {found} of {table.origin}")


def _check_num_classes(wanted: int, found: int, origin: str) -> None:
    if wanted != found:
        raise InvalidRequest.at("spec.dataset", f"has {wanted} classes, {origin} is for {found}")


def _missing_rows(config: JobConfig, table: KnownTable | None) -> list[OperatorSpec]:
    """What a search needs of its table and does not find there."""
    if table is None or not isinstance(config, SearchConfig):
        return []
    needed = space_specs(config.space, config.resolution, NUM_CLASSES[config.dataset])
    return [operator for operator in needed if operator not in table.entries]
