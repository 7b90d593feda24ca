"""What a submission would be, told before anything runs: refused as it would be, but for rows that its table lacks."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from fasterseg_core.config import JobConfig, ProfileConfig, RetrainConfig, SearchConfig
from fasterseg_core.table_rows import asked_rows
from services.client.schemas import (
    CostEstimate,
    JobState,
    JobSubmission,
    Plan,
    PlannedInput,
    PlannedPhase,
    PlannedRows,
)
from services.control_plane.costs import (
    EarlierJob,
    Work,
    earlier_jobs,
    estimate_cost,
    networks_of,
    no_cost,
    steps_per_pass,
)
from services.control_plane.submission import CheckedSubmission, KnownTable, check_submission
from services.storage.inputs import known_inputs
from services.storage.jobs import find_job
from services.storage.projects import project_of, show_project
from services.storage.tables import JobRow


def plan_job(session: Session, submission: JobSubmission) -> Plan:
    """What the submission would be; nothing is stored.

    Raises:
        InvalidRequest, Conflict: as `submit_job`, but rows that a search's table lacks are named in the plan.
    """
    checked = check_submission(session, submission, find_job)
    named = submission.inputs.model_dump(mode="json", exclude_none=True)
    job = JobRow(kind=submission.kind, spec=checked.spec, inputs=named, sources=checked.sources)
    earlier = earlier_jobs(session, job)
    rows = _rows(checked.config, checked.table)
    work = list(_work(checked.config, rows, earlier))
    steps = [part.steps for part in work]
    return Plan(
        kind=submission.kind,
        spec=checked.spec,
        inputs=_inputs(session, job, checked),
        waits_for=[parent.id for parent in checked.parents if parent.state is not JobState.SUCCEEDED],
        missing_rows=[spec.key for spec in checked.missing_rows],
        rows=rows,
        phases=[PlannedPhase(name=part.phase, steps=part.steps) for part in work],
        steps=sum(count or 0 for count in steps) if steps and None not in steps else None,
        estimate=_cost(session, job, work, earlier),
        project=show_project(session, project_of(session)),
    )


def _inputs(session: Session, job: JobRow, checked: CheckedSubmission) -> list[PlannedInput]:
    known = known_inputs(session, job).model_dump(exclude_none=True)
    names = dict.fromkeys((*job.inputs, *job.sources))
    return [
        PlannedInput(
            name=name,
            id=known.get(name),
            job=checked.sources.get(name),
            about=_about(checked.table) if name == "latency_table" and checked.table is not None else None,
        )
        for name in names
    ]


def _about(table: KnownTable) -> str:
    device = "a device that is not known yet" if table.device is None else table.device
    resolution = f"{table.resolution.height}x{table.resolution.width}"
    return f"{table.engine} on {device}, {table.precision}, {resolution}"


def _rows(config: JobConfig, table: KnownTable | None) -> PlannedRows | None:
    if not isinstance(config, ProfileConfig):
        return None
    _, asked = asked_rows(config)
    taken_over = 0 if table is None else len(table.sound_entries.intersection(asked))
    return PlannedRows(to_measure=len(asked) - taken_over, taken_over=taken_over)


def _work(config: JobConfig, rows: PlannedRows | None, earlier: list[EarlierJob]) -> Iterator[Work]:
    """The phases by the names under which workers report them."""
    match config:
        case ProfileConfig():
            assert rows is not None, "a profile job's"
            networks = config.calibration_networks + config.random_networks if config.random_networks else 0
            yield Work(phase="measure operators", steps=rows.to_measure * config.passes)
            yield Work(phase="measure networks", steps=networks * config.passes)
        case SearchConfig():
            steps = config.steps_per_epoch or steps_per_pass(earlier)
            yield Work(phase="pretrain", steps=_times(config.pretrain_epochs, steps))
            yield Work(phase="search", steps=_times(config.epochs, steps), evaluations=config.epochs)
        case RetrainConfig():
            steps = config.steps_per_epoch or steps_per_pass(earlier)
            evaluations = -(-config.epochs // config.evaluate_every)  # the last epoch's in any case
            yield Work(phase="retrain", steps=_times(config.epochs, steps), evaluations=evaluations)


def _times(epochs: int, steps: int | None) -> int | None:
    return None if steps is None and epochs else epochs * (steps or 0)


def _cost(session: Session, job: JobRow, work: list[Work], earlier: list[EarlierJob]) -> CostEstimate:
    for name, architecture in networks_of(session, job).items():
        if architecture is None:
            maker = job.sources.get(name) or job.inputs[name]
            return no_cost(f"{name}: job {maker} has not made it yet: plan again once it has succeeded")
    return estimate_cost(job.kind, work, earlier)
