"""The commands `fasterseg project`: what the jobs of a project have used, and may use."""

import math
from typing import Annotated

import typer
from rich.console import Console

from .cli_connection import DEFAULT_URL, AsJson, Url, print_json, service
from .display import labelled, project_hours
from .schemas import ProjectPage, ProjectRecord

project_app = typer.Typer(no_args_is_help=True, help="Projects: list them, show what their jobs used, limit it.")

ProjectArgument = Annotated[str, typer.Argument(metavar="NAME", help="Another project than yours: operators only.")]


@project_app.command("list")
def list_(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List what the projects have used, and have left: yours, or for an operator all."""
    with service(url) as client:
        projects = client.projects()
    if as_json:
        print_json(ProjectPage(items=projects))
    else:
        Console().print(labelled((project.name, project_hours(project)) for project in projects))


@project_app.command()
def show(name: ProjectArgument, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show how many hours a project's jobs have used, and have left."""
    with service(url) as client:
        project = client.project(name)
    _print(project, as_json)


@project_app.command()
def limit(
    name: ProjectArgument,
    max_hours: Annotated[
        float,
        typer.Option(metavar="HOURS", help="What its jobs may use in all, times their GPUs; inf takes the limit away."),
    ],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Set the hours of a project; operators only. Once they are used its jobs wait, and with more they go on."""
    with service(url) as client:
        project = client.limit_project(name, max_hours=None if max_hours == math.inf else max_hours)
    _print(project, as_json)


def _print(project: ProjectRecord, as_json: bool) -> None:
    if as_json:
        print_json(project)
    else:
        Console().print(labelled([("project", project.name), ("hours", project_hours(project))]))
