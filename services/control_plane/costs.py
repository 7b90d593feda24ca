"""What a job will take, from what an earlier one of the same shape took: steps and evaluations at the same pace."""

from dataclasses import dataclass
from itertools import islice

from sqlalchemy.orm import Session

from services.client.attempt_schemas import PhaseUsage, Usage
from services.client.schemas import CostEstimate, JobKind, JobState, Progress
from services.storage.inputs import known_inputs, trained_architecture
from services.storage.tables import JobRow
from services.storage.usages import recently_started, usages_of

# Settings that change neither what a step or an evaluation costs nor the memory; every other must be equal.
FREE: dict[JobKind, frozenset[str]] = {
    JobKind.PROFILE: frozenset({"accept_noise", "random_networks", "calibration_networks", "part", "parts"}),
    JobKind.SEARCH: frozenset(
        {
            *("pretrain_epochs", "epochs", "steps_per_epoch", "pretrain_optimizer", "optimizer"),
            *("architecture_learning_rate", "architecture_betas", "temperature", "latency_weight", "target_latency_ms"),
            *("granularity_weights", "target_exponent", "collapse_policy", "ohem", "seed"),
        }
    ),
    JobKind.RETRAIN: frozenset(
        {
            *("role", "epochs", "steps_per_epoch", "evaluate_every", "optimizer", "annealed_to", "auxiliary_weight"),
            *("distillation_weight", "distillation", "ohem", "seed"),
        }
    ),
    JobKind.EVALUATE: frozenset({"pictures"}),
    JobKind.EXPORT: frozenset({"accept_noise"}),
}

ENOUGH = 20  # earlier jobs: one of them has been to its end

PROBES = {
    JobKind.PROFILE: "one with parts=100 and random_networks=0 measures a hundredth of the rows",
    JobKind.SEARCH: "a short one measures it, with pretrain_epochs=1 and epochs=1",
    JobKind.RETRAIN: "a short one measures it, with epochs=1",
    JobKind.EVALUATE: "it takes seconds to minutes",
    JobKind.EXPORT: "it takes seconds to minutes",
}
UNCOUNTED = (
    "steps_per_epoch is null, one pass over data that no earlier job of this shape has counted: give a number, "
    "or run a short job that leaves it null"
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One phase of a job: steps, None where they depend on data that no job has counted, and evaluations between."""

    phase: str
    steps: int | None
    evaluations: int = 0


@dataclass(frozen=True)
class EarlierJob:
    """A job that has run, with what its attempts took."""

    row: JobRow
    usages: list[Usage]


def earlier_jobs(session: Session, job: JobRow) -> list[EarlierJob]:
    """Jobs of the same shape that have told what they took, newest first; `job` need not be in the database."""
    settings, networks = _settings(job), networks_of(session, job)
    same = (row for row in recently_started(session, job.kind) if _settings(row) == settings)
    ran = (EarlierJob(row, usages_of(session, row.id)) for row in same if networks_of(session, row) == networks)
    return list(islice((earlier for earlier in ran if earlier.usages), ENOUGH))


def networks_of(session: Session, job: JobRow) -> dict[str, str | None]:
    """The architectures of the networks that a job works with, by input; None where one is not made yet."""
    inputs = known_inputs(session, job)
    found = {"architecture": inputs.architecture} if job.kind is JobKind.RETRAIN else {}
    trained = {"network": inputs.network, "teacher": inputs.teacher}
    return found | {name: trained_architecture(session, by) for name, by in trained.items() if by is not None}


def steps_per_pass(jobs: list[EarlierJob]) -> int | None:
    """The steps of an epoch that is one pass over the data, as the newest of these jobs that made one counted them."""
    passes = [job.row.progress for job in jobs if job.row.spec["steps_per_epoch"] is None]
    steps = [Progress.model_validate(progress).steps for progress in passes if progress is not None]
    return next((count for count in steps if count), None)


def estimate_cost(kind: JobKind, work: list[Work], jobs: list[EarlierJob]) -> CostEstimate:
    """The estimate from the newest of these jobs that has done all of this work's parts, else the memory alone."""
    timed = next((job for job in jobs if _lacking(job, work) is None), None)
    job = timed or next(iter(jobs), None)
    if job is None:
        return no_cost(f"no earlier {kind} job of this shape has run: {PROBES[kind]}")
    gpu = [usage.peak_gpu_memory_bytes for usage in job.usages if usage.peak_gpu_memory_bytes is not None]
    return CostEstimate(
        seconds=None if timed is None else _seconds(timed, work),
        peak_memory_bytes=max(usage.peak_memory_bytes for usage in job.usages),
        peak_gpu_memory_bytes=max(gpu, default=None),
        job=job.row.id,
        device=job.usages[-1].device,
        reason=_lacking(job, work),
    )


def no_cost(reason: str) -> CostEstimate:
    """That nothing is known, and why."""
    return CostEstimate(
        seconds=None, peak_memory_bytes=None, peak_gpu_memory_bytes=None, job=None, device=None, reason=reason
    )


def _settings(job: JobRow) -> dict[str, object]:
    """What of a job's specification costs time or memory."""
    settings: dict[str, object] = {name: value for name, value in job.spec.items() if name not in FREE[job.kind]}
    return settings | {"has_target": job.spec.get("target_latency_ms") is not None}  # which every step then holds


def _lacking(job: EarlierJob, work: list[Work]) -> str | None:
    """Why an earlier job does not tell how long this work takes; None where it does."""
    if not work:
        state = job.row.state
        return None if state is JobState.SUCCEEDED else f"job {job.row.id} of this shape is {state}, not succeeded"
    done = _phases(job)
    for part in work:
        if part.steps is None:
            return UNCOUNTED
        phase = done.get(part.phase)
        if part.steps and (phase is None or not phase.steps):
            return f"job {job.row.id} of this shape made fewer than two steps of phase {part.phase!r}"
        if part.evaluations and (phase is None or not phase.evaluations):
            return f"job {job.row.id} of this shape finished no epoch of phase {part.phase!r}"
    return None


def _seconds(job: EarlierJob, work: list[Work]) -> float:
    """The time of the work at the earlier job's pace, with what that took before its first step and at its end."""
    last, done = job.usages[-1], _phases(job)
    around = last.seconds - sum(phase.step_seconds + phase.evaluation_seconds for phase in last.phases.values())
    if not work:  # it takes as long as that
        return around + sum(phase.step_seconds for phase in last.phases.values() if phase.steps)
    steps = (part.steps * done[part.phase].step_seconds / done[part.phase].steps for part in work if part.steps)
    evaluated = ((part.evaluations, done[part.phase]) for part in work if part.evaluations)
    return around + sum(steps) + sum(count * phase.evaluation_seconds / phase.evaluations for count, phase in evaluated)


def _phases(job: EarlierJob) -> dict[str, PhaseUsage]:
    """The phases of all attempts together."""
    phases: dict[str, PhaseUsage] = {}
    for name, phase in (item for usage in job.usages for item in usage.phases.items()):
        phases[name] = _sum(phases[name], phase) if name in phases else phase
    return phases


def _sum(one: PhaseUsage, other: PhaseUsage) -> PhaseUsage:
    return PhaseUsage(
        steps=one.steps + other.steps,
        step_seconds=one.step_seconds + other.step_seconds,
        evaluations=one.evaluations + other.evaluations,
        evaluation_seconds=one.evaluation_seconds + other.evaluation_seconds,
    )
