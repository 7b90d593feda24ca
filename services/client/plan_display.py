"""Plans as tables for people to read."""

from collections.abc import Iterator

from rich.console import Group, RenderableType

from .display import labelled, project_hours, specification
from .progress import clock
from .schemas import CostEstimate, Plan, PlannedInput

SHOWN_ROWS = 3  # of those that are missing


def plan_details(plan: Plan) -> RenderableType:
    """Everything about a plan, what matters most at the end, ready to print."""
    return Group(specification(plan.spec), labelled(_rows(plan)))


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    for planned in plan.inputs:
        yield planned.name.replace("_", " "), _input(planned)
    if plan.waits_for:
        yield "waits for", " ".join(plan.waits_for)
    if plan.rows is not None:
        taken_over = f", {plan.rows.taken_over} are taken over" if plan.rows.taken_over else ""
        yield "rows", f"{plan.rows.to_measure:,} to measure{taken_over}"
    for phase in plan.phases:
        yield phase.name, _steps(phase.steps)
    if len(plan.phases) > 1:
        yield "in all", _steps(plan.steps)
    yield from _cost(plan.estimate)
    yield "project hours", f"{project_hours(plan.project)} ({plan.project.name})"
    if plan.missing_rows:
        more = len(plan.missing_rows) - SHOWN_ROWS
        others = f" and {more:,} more" if more > 0 else ""
        yield "missing rows", f"{', '.join(plan.missing_rows[:SHOWN_ROWS])}{others}: it would be refused"


def _input(planned: PlannedInput) -> str:
    source = "" if planned.job is None else f"by job {planned.job}"
    about = f"({planned.about})" if planned.about is not None else ""
    return " ".join(part for part in (planned.id or "to be made", source, about) if part)


def _steps(count: int | None) -> str:
    return "an unknown number of steps" if count is None else f"{count:,} steps"


def _cost(estimate: CostEstimate) -> Iterator[tuple[str, str]]:
    yield "time", "unknown" if estimate.seconds is None else clock(estimate.seconds)
    if estimate.peak_memory_bytes is not None:
        yield "memory", _gigabytes(estimate.peak_memory_bytes)
    if estimate.peak_gpu_memory_bytes is not None:
        yield "GPU memory", _gigabytes(estimate.peak_gpu_memory_bytes)
    if estimate.job is not None:
        yield "as took", f"job {estimate.job} on {estimate.device}"
    if estimate.reason is not None:
        yield "unknown", estimate.reason


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
