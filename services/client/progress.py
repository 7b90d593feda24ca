"""Jobs shown while they run: one live bar each on a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from .client import FasterSegClient
from .schemas import Job, JobState, Progress


def watch(client: FasterSegClient, job_ids: Sequence[str], console: Console, *, poll_seconds: float = 0.5) -> list[Job]:
    """The jobs in their final states and in the order of their ids, shown until they are."""
    show = _show_bars if console.is_terminal else _show_lines
    final = {job.id: job for job in show(client.follow(*job_ids, poll_seconds=poll_seconds), console)}
    return [final[job_id] for job_id in job_ids]


def title(job: Job) -> str:
    """What a person calls the job: its kind and its name, or else its id."""
    return f"{job.kind} {job.name or job.id}"


def details(progress: Progress) -> str:
    """Where a running job is, in one line: phase, epoch, step, what is left, and the latest values."""
    parts = [progress.phase]
    if progress.epochs:
        parts.append(f"epoch {progress.epoch}/{progress.epochs}")
    if progress.steps:
        parts.append(f"step {progress.step}/{progress.steps}")
    if progress.seconds_left is not None:
        parts.append(f"eta {clock(progress.seconds_left)}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.latency_ms is not None:
        parts.append(f"latency {progress.latency_ms:.4g} ms")
    if progress.miou is not None:
        parts.append(f"mIoU {progress.miou:.3f}")
    return "  ".join(parts)


def status(job: Job) -> str:
    """The job's state with what explains it: its progress, its failure, or a request not yet obeyed."""
    if job.state is JobState.RUNNING and job.cancel_requested:
        return "running, to be cancelled"
    if job.paused:
        state = "paused" if job.state is JobState.QUEUED else "running, to be paused"
        return state if job.limit_reached is None else f"{state}: {job.limit_reached}"
    if job.state is JobState.RUNNING and job.progress is not None:
        return details(job.progress)
    if job.reason is not None:
        return f"{job.state}: {job.reason.message}".splitlines()[0]
    return job.state


class _StatusColumn(ProgressColumn):
    """What the job does, cut off where the terminal ends, so that each job keeps its line and its bar."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["status"], no_wrap=True, overflow="ellipsis")


def _show_bars(updates: Iterator[Job], console: Console) -> Iterator[Job]:
    bars = Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        TaskProgressColumn(),
        _StatusColumn(),
        console=console,
    )
    tasks = {}
    with bars:
        for job in updates:
            if job.id not in tasks:
                tasks[job.id] = bars.add_task(title(job), total=1.0, status="")
            bars.update(tasks[job.id], completed=_fraction(job), status=status(job))
            yield job


def _show_lines(updates: Iterator[Job], console: Console) -> Iterator[Job]:
    """One line whenever a job enters a state, a phase or an epoch."""
    shown: dict[str, tuple[JobState, str, int]] = {}
    for job in updates:
        if shown.get(job.id) != _place(job):
            shown[job.id] = _place(job)
            line = f"{title(job)}  {_fraction(job):4.0%}  {status(job)}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        yield job


def _place(job: Job) -> tuple[JobState, str, int]:
    if job.progress is None:
        return job.state, "", 0
    return job.state, job.progress.phase, job.progress.epoch


def _fraction(job: Job) -> float:
    if job.state is JobState.SUCCEEDED:
        return 1.0
    return job.progress.fraction if job.progress is not None else 0.0


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
