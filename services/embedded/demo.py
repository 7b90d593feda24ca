"""`python -m services.embedded.demo`: the main job, from an empty folder to an exported network, through the API."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.client.client import FasterSegClient
from services.client.progress import watch
from services.client.schemas import Job, JobKind, JobState, JsonObject
from services.embedded import instance
from services.embedded.settings import Settings

GENERATED = "street_scenes"
DATA_SETS = ("camvid", "camvid_720x960", "cityscapes", "bdd100k")
ROLES = ("student", "teacher")
LOOK_SECONDS = 2.0  # between looks at the jobs, which have the same cores

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Jobs:
    """The jobs of the demo, in the order in which they run; the last two by role."""

    profile: str
    search: str
    retrain: dict[str, str]
    evaluate: dict[str, str]
    export: dict[str, str]

    @property
    def all(self) -> list[str]:
        """Every job's id."""
        per_role = [jobs[role] for jobs in (self.retrain, self.evaluate, self.export) for role in reversed(ROLES)]
        return [self.profile, self.search, *per_role]


@app.command()
def main(
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A data set's folder, called camvid, camvid_720x960, cityscapes or bdd100k; generated scenes without.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo-out"),
    state: Annotated[Path, typer.Option(help="Folder of the service's state.")] = Path(".fasterseg/demo"),
    port: Annotated[int, typer.Option(help="Port of the API.")] = 8000,
    dashboard_port: Annotated[int, typer.Option(help="Port of Ray's dashboard.")] = 8265,
    profiler_port: Annotated[int, typer.Option(help="Port of the profiler.")] = 8001,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running.")] = False,
) -> None:
    """Search, retrain, evaluate and export a network on this machine, and write what came of it."""
    started = time.monotonic()
    console = Console()
    dataset = data.resolve().name if data else GENERATED
    if dataset not in (GENERATED, *DATA_SETS):
        raise typer.BadParameter(f"a data set's folder is called {', '.join(DATA_SETS)}, not {dataset}")
    settings = Settings(
        state=state.resolve(),
        port=port,
        dashboard_port=dashboard_port,
        profiler_port=profiler_port,
        data_root=data and data.resolve().parent,
        cpus=os.cpu_count() or 1,
    )
    with _service(settings, keep, console) as client:
        jobs = submit(client, dataset)
        finished = {job.id: job for job in watch(client, jobs.all, console, poll_seconds=LOOK_SECONDS)}
        _stop_at_failure(finished, client, console)
        results = collect(jobs, finished)
        results["seconds"] = round(time.monotonic() - started, 1)
        write(client, jobs, finished, results, out)
    _show(results, out, console)


@contextmanager
def _service(settings: Settings, keep: bool, console: Console) -> Iterator[FasterSegClient]:
    console.print(f"starting the service; its logs are in {settings.state / 'logs'}", soft_wrap=True, highlight=False)
    try:
        is_ours = instance.up(settings, console.print)
    except instance.StartError as error:
        console.print(f"fasterseg: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1) from error
    try:
        console.print(f"API {settings.url}/docs   Ray dashboard {settings.dashboard_url}", soft_wrap=True)
        tokens = f"the API's token is in {settings.api_token_file}, the dashboard's in {settings.token_file}"
        console.print(tokens, soft_wrap=True, highlight=False)
        with FasterSegClient(settings.url, token=settings.api_token_file.read_text()) as client:
            yield client
    finally:
        if is_ours and not keep:
            instance.down(settings.state, console.print)


def submit(client: FasterSegClient, dataset: str) -> Jobs:
    """Submits the whole chain at once; the service runs each job when those before it have succeeded."""
    data: JsonObject = {"dataset": dataset}

    def add(kind: JobKind, name: str, spec: JsonObject, *after: str) -> str:
        return client.submit(kind, spec, preset="quick", after=after, name=name).id

    profile = add(JobKind.PROFILE, "latency table", data)
    search = add(JobKind.SEARCH, "teacher and student", data, profile)
    teacher = add(JobKind.RETRAIN, "teacher", {**data, "role": "teacher"}, search)
    student = add(JobKind.RETRAIN, "student", {**data, "role": "student"}, search, teacher)
    retrain = {"student": student, "teacher": teacher}
    return Jobs(
        profile=profile,
        search=search,
        retrain=retrain,
        evaluate={role: add(JobKind.EVALUATE, role, data, retrain[role]) for role in ROLES},
        export={role: add(JobKind.EXPORT, role, {}, retrain[role], profile) for role in ROLES},
    )


def collect(jobs: Jobs, finished: dict[str, Job]) -> JsonObject:
    """The figures of both networks and of what they have to beat."""
    summary: JsonObject = {}
    for role in ROLES:
        evaluated, exported = finished[jobs.evaluate[role]].result, finished[jobs.export[role]].result
        assert evaluated is not None, "a succeeded job has a result"
        assert exported is not None, "a succeeded job has a result"
        summary[role] = {
            "miou": evaluated["miou"],
            "predicted_ms": exported["predicted_ms"],
            "measured_ms": exported["measured_ms"],
            "verdict": exported["verdict"],
            "parameters": exported["parameters"],
            "macs": exported["macs"],
            "max_difference": exported["max_difference"],
        }
        if role == "student":
            summary["untrained"] = {"miou": evaluated["untrained_miou"]}
            summary["constant"] = {"miou": evaluated["constant_miou"]}
    return summary


def write(client: FasterSegClient, jobs: Jobs, finished: dict[str, Job], results: JsonObject, out: Path) -> None:
    """The network, its architecture, the figures and the pictures, in one folder."""
    files = {
        "student.onnx": (jobs.export["student"], "network.onnx"),
        "architecture.svg": (jobs.search, "student.svg"),
        "search.png": (jobs.search, "curves.png"),
        "latency.png": (jobs.profile, "fidelity.png"),
        "training.png": (jobs.retrain["student"], "curves.png"),
        "predictions.png": (jobs.evaluate["student"], "predictions.png"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, (job_id, artifact) in files.items():
        sha256 = next(a.sha256 for a in finished[job_id].artifacts if a.name == artifact)
        (out / name).write_bytes(client.artifact(sha256))
    student = client.architecture(finished[jobs.search].architectures["student"])
    (out / "architecture.json").write_text(json.dumps(student.document, indent=1) + "\n")
    (out / "summary.json").write_text(json.dumps(results, indent=1) + "\n")


def _stop_at_failure(finished: dict[str, Job], client: FasterSegClient, console: Console) -> None:
    for job in finished.values():
        if job.state is not JobState.SUCCEEDED:
            reason = job.reason.message if job.reason else job.state
            message = f"the {job.kind} job {job.id} did not succeed: {reason}"
            console.print(message, soft_wrap=True, markup=False, highlight=False)
            console.print(client.logs(job.id), markup=False, highlight=False)
            raise typer.Exit(1)


def _show(results: JsonObject, out: Path, console: Console) -> None:
    table = Table(title="on the validation set, batch 1")
    for column in ("", "mIoU", "predicted ms", "measured ms", "parameters", "MACs"):
        table.add_column(column, justify="left" if not column else "right")
    for name in (*ROLES, "untrained", "constant"):
        row = results[name]
        assert isinstance(row, dict)
        cells = [f"{100 * float(str(row['miou'])):.1f} %"]
        if name in ROLES:
            cells += [f"{float(str(row[key])):.2f}" for key in ("predicted_ms", "measured_ms")]
            cells += [f"{int(str(row['parameters'])) / 1e3:,.0f} k", f"{int(str(row['macs'])) / 1e6:,.0f} M"]
        table.add_row({"untrained": "untrained student", "constant": "best constant"}.get(name, name), *cells)
    console.print(table)
    console.print(f"{results['seconds']} s in all; everything is in {out}/", highlight=False)


if __name__ == "__main__":
    app()
