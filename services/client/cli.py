"""The command `fasterseg`: submit jobs to the service, watch them, fetch what they made, start and stop the service."""

import json
import re
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from .architecture_diff import architecture_diff
from .cli_connection import (
    DEFAULT_URL,
    FAILED,
    AsJson,
    JsonFile,
    Url,
    first_error,
    id_of,
    json_object,
    print_json,
    said,
    sent_object,
    service,
    watch_to_the_end,
)
from .cli_programs import TO_ANOTHER_PROGRAM, run_core, run_service
from .client import FasterSegClient, SubmissionOptions
from .display import job_details, job_table
from .lut_cli import lut_app
from .plan_display import plan_details
from .progress import status, title
from .project_cli import project_app
from .schemas import Deadline, Inputs, Job, JobId, JobKind, JobState, JsonObject, Plan, Preset
from .token_cli import token_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Neural architecture search for real-time segmentation, as a service. "
    "Exit codes: 0 succeeded, 1 failed, 2 usage, 3 the service cannot be reached.",
)

arch_app = typer.Typer(no_args_is_help=True, help="Architectures: import published ones, compare, add.")
app.add_typer(arch_app, name="arch")
app.add_typer(lut_app, name="lut")
app.add_typer(token_app, name="token")
app.add_typer(project_app, name="project")


def _moment(text: str) -> datetime:
    try:
        moment: datetime = TypeAdapter(Deadline).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r}: {said(error)}") from error
    return moment


JobArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of a job.", callback=id_of(JobId))]
MaxHoursOption = Annotated[
    float | None,
    typer.Option("--max-hours", metavar="HOURS", help="Pause it after so many hours of work, times its GPUs."),
]
DeadlineOption = Annotated[
    datetime | None,
    typer.Option("--deadline", metavar="TIME", parser=_moment, help="Pause it then, as in 2026-12-01T08:00Z."),
]


@app.command()
def submit(
    kind: Annotated[JobKind, typer.Argument(metavar="KIND", help="profile, search, retrain, evaluate or export.")],
    spec: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="JSON file with the job's configuration; - reads standard input."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set one field, as in space.num_layers=6. Repeatable."),
    ] = None,
    preset: Annotated[Preset, typer.Option(help="What the configuration starts from.")] = Preset.PAPER,
    after: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Run after this job, on what it made. Repeatable.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=ID",
            help="Read this instead: latency_table, architecture, network or teacher. Repeatable.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="A name for people.")] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Of two jobs that can run the higher starts first.")
    ] = 0,
    max_hours: MaxHoursOption = None,
    deadline: DeadlineOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Submit nothing: say what it would be, and take. Exits with 1 if refused.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show its progress until it ends.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job and print its id. What is not configured is as in the preset."""
    if plan and wait:
        raise typer.BadParameter("--plan submits nothing that could be waited for", param_hint="--wait")
    configuration = _configuration(spec, settings or [])
    options: SubmissionOptions = {
        "preset": preset,
        "after": after or [],
        "inputs": _inputs(inputs or []),
        "name": name,
        "priority": priority,
        "max_hours": max_hours,
        "deadline": deadline,
    }
    with service(url) as client:
        if plan:
            _show_plan(client.plan(kind, configuration, **options), as_json)
            return
        job = client.submit(kind, configuration, **options)
        if not as_json:
            typer.echo(job.id)
        if wait:
            watch_to_the_end(client, job.id, as_json)
        elif as_json:
            print_json(job)


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only jobs of this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    with service(url) as client:
        jobs = list(islice(client.jobs(state=state, kind=kind), limit))
    if as_json:
        typer.echo(TypeAdapter(list[Job]).dump_json(jobs, indent=2).decode())
    else:
        Console().print(job_table(jobs))


@app.command()
def show(job_id: JobArgument, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show everything about a job."""
    with service(url) as client:
        job = client.job(job_id)
    if as_json:
        print_json(job)
    else:
        Console().print(job_details(job))


@app.command()
def logs(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="An earlier attempt's.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Print what a job's latest attempt, or an earlier one, has printed."""
    if follow and attempt is not None:
        raise typer.BadParameter("an earlier attempt prints nothing more: leave --follow out", param_hint="--attempt")
    with service(url) as client:
        for piece in client.follow_logs(job_id) if follow else [client.logs(job_id, attempt=attempt)]:
            typer.echo(piece, nl=False)


@app.command()
def events(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print a job's history, one JSON object a line."""
    with service(url) as client:
        for event in client.stream_events(job_id) if follow else client.events(job_id):
            typer.echo(event.model_dump_json())


@app.command()
def wait(job_id: JobArgument, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show a job's progress until it ends.

    Exits with 0 where it succeeded and with 1 where it failed or was cancelled.
    """
    with service(url) as client:
        watch_to_the_end(client, job_id, as_json)


@app.command()
def cancel(job_id: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a job to stop."""
    with service(url) as client:
        job = client.cancel(job_id)
    typer.echo(f"{title(job)}: {job.state if job.state.is_final else 'cancellation requested'}")


@app.command()
def pause(job_id: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Keep a job from starting, or ask it to stop until it is resumed."""
    with service(url) as client:
        job = client.pause(job_id)
    typer.echo(f"{title(job)}: {status(job)}")


@app.command()
def resume(
    job_id: JobArgument, max_hours: MaxHoursOption = None, deadline: DeadlineOption = None, url: Url = DEFAULT_URL
) -> None:
    """Let a paused job go on where it was; a limit that it has reached must be raised."""
    with service(url) as client:
        job = client.resume(job_id, max_hours=max_hours, deadline=deadline)
    typer.echo(f"{title(job)}: {status(job)}")


@app.command()
def fetch(
    job_id: JobArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to; by default, named by ID.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write what a job made to a folder, verified, and print the paths."""
    folder = output or Path(job_id)
    with service(url) as client:
        try:
            paths = client.fetch(client.job(job_id), folder)
        except OSError as error:
            raise typer.BadParameter(f"{folder}: {error.strerror}", param_hint="--output") from error
    for path in paths:
        typer.echo(str(path))


@app.command(context_settings=TO_ANOTHER_PROGRAM)
def up(context: typer.Context) -> None:
    """Start the service here (options: fasterseg up --help)."""
    run_service("up", context.args)


@app.command(context_settings=TO_ANOTHER_PROGRAM)
def down(context: typer.Context) -> None:
    """Stop the service here (options: fasterseg down --help)."""
    run_service("down", context.args)


@app.command("status", context_settings=TO_ANOTHER_PROGRAM)
def show_status(context: typer.Context) -> None:
    """Say how the service is (options: fasterseg status --help)."""
    run_service("status", context.args)


@arch_app.command("import", context_settings=TO_ANOTHER_PROGRAM)
def import_architecture(context: typer.Context) -> None:
    """Derive an architecture from published search parameters (options: fasterseg arch import --help)."""
    run_core("arch", "import", context.args)


@arch_app.command("diff")
def diff_architectures(
    before: Annotated[str, typer.Argument(metavar="A", help="Id of an architecture, or its JSON file.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Id of an architecture, or its JSON file.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Show two architectures side by side, and mark where they differ."""
    with service(url) as client:
        documents = [_document(client, name) for name in (before, after)]
    try:
        table, count = architecture_diff(*documents)
    except ValidationError as error:
        raise typer.BadParameter(f"{before}, {after}: no architectures: {first_error(error)}") from error
    Console().print(table)
    typer.echo(f"{count} of {table.row_count} rows differ")


@arch_app.command("add")
def add_architecture(
    file: JsonFile,
    url: Url = DEFAULT_URL,
) -> None:
    """Add an architecture to the service and print its id, for inputs.architecture of a retrain job."""
    document = sent_object(file)
    with service(url) as client:
        typer.echo(client.add_architecture(document).id)


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
    else:
        Console().print(plan_details(plan))
    if plan.missing_rows:
        raise typer.Exit(FAILED)


def _document(client: FasterSegClient, name: str) -> JsonObject:
    """The architecture in a file, or else the one of an id."""
    if re.fullmatch("[0-9a-f]{64}", name):
        return client.architecture(name).document
    try:
        return json_object(name, Path(name).read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{name!r} is neither an architecture's id nor a file: {error.strerror}") from error


def _configuration(spec: typer.FileBinaryRead | None, settings: list[str]) -> JsonObject:
    """The configuration in the file, with single fields set."""
    configuration: JsonObject = {}
    if spec is not None:
        configuration = sent_object(spec)
    for setting in settings:
        path, value = _pair(setting, "--set")
        *parents, last = path.split(".")
        place = configuration
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise typer.BadParameter(f"{setting!r}: {parent} is a value, not a group", param_hint="--set")
            place = inner
        place[last] = _value(value)
    return configuration


def _value(text: str) -> JsonValue:
    """The JSON value of the text, or else the text itself, so that dataset=camvid needs no quotes."""
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value


def _inputs(pairs: list[str]) -> Inputs:
    try:
        return Inputs.model_validate(dict(_pair(pair, "--input") for pair in pairs))
    except ValidationError as error:
        raise typer.BadParameter(first_error(error), param_hint="--input") from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value
