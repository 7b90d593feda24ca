"""`python -m services.embedded up | down | status`: the whole service on this machine, also as `fasterseg up`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.embedded import instance
from services.embedded.settings import Settings

app = typer.Typer(
    name="fasterseg", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

State = Annotated[Path, typer.Option(help="Folder of the database, the artifacts, the logs and the tokens.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")]
DashboardPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of Ray's dashboard.")]
ProfilerPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the profiler.")]

STATE = Path(".fasterseg")


@app.command()
def up(
    state: State = STATE,
    port: Port = 8000,
    dashboard_port: DashboardPort = 8265,
    profiler_port: ProfilerPort = 8001,
    data_root: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of the data sets.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Cores for jobs.")] = os.cpu_count() or 1,
) -> None:
    """Start the service on this machine and wait until it is healthy."""
    settings = Settings(
        state=state.resolve(),
        port=port,
        dashboard_port=dashboard_port,
        profiler_port=profiler_port,
        data_root=data_root and data_root.resolve(),
        cpus=cpus,
    )
    try:
        instance.up(settings, typer.echo)
    except instance.StartError as error:
        typer.echo(f"fasterseg: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"API             {settings.url}/api/v1   documentation {settings.url}/docs")
    typer.echo(f"API token       in {settings.api_token_file}")
    typer.echo(f"Ray dashboard   {settings.dashboard_url}   its token is in {settings.token_file}")


@app.command()
def down(state: State = STATE) -> None:
    """Stop the service; what it stored stays."""
    instance.down(state.resolve(), typer.echo)


@app.command()
def status(state: State = STATE) -> None:
    """Say how each part of the service is; exit code 1 where it is not healthy."""
    if not instance.status(state.resolve(), typer.echo):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
