"""The commands `fasterseg lut`: build, list, show, compare, verify, export, add and import latency tables."""

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from .cli_connection import (
    DEFAULT_URL,
    FAILED,
    AsJson,
    JsonFile,
    Url,
    first_error,
    json_object,
    print_json,
    say,
    sent_object,
    service,
    watch_to_the_end,
)
from .cli_programs import TO_ANOTHER_PROGRAM, run_core
from .client import FasterSegClient
from .latency_table import LatencyTable, canonical_json, merged_table, table_digest
from .latency_table_diff import table_diff
from .latency_table_display import LIST_WIDTH, SHORT, table_details, table_list
from .latency_table_faults import table_faults
from .schemas import Inputs, JobKind, JsonObject, LatencyTableSummary, Preset
from .transport import verified

LEAST_DIGITS = 6  # of an id that is shortened

lut_app = typer.Typer(no_args_is_help=True, help="Latency tables: build, list, show, compare, verify, export, add.")

TableId = Annotated[str, typer.Argument(metavar="TABLE", help="Id of a latency table, or its first digits.")]
TableOrFile = Annotated[str, typer.Argument(metavar="TABLE", help="Id of a latency table, or its JSON file.")]


@lut_app.command()
def build(
    preset: Annotated[Preset, typer.Option(help="What the configuration starts from.")] = Preset.PAPER,
    engine: Annotated[str | None, typer.Option(help="onnxruntime, openvino, torch_cuda or tensorrt.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU engine.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Of the image, in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Of the image, in pixels.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set whose classes are predicted.")] = None,
    earlier: Annotated[
        str | None,
        typer.Option("--from", metavar="TABLE", help="Take over the measured rows of this table, measure the others."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Measure one part of N of the rows; `fasterseg lut merge` joins the parts."),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Measure operators by themselves, as published tables do, not as in networks."),
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="A name for people.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its progress, then print the table's id.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job that measures a latency table, and print the job's id."""
    resolution = _given(height=height, width=width)
    spec = _given(
        engine=engine,
        threads=threads,
        precision=precision,
        dataset=dataset,
        resolution=resolution or None,
        alone=alone or None,
    )
    spec |= {} if part is None else _part(part)
    with service(url) as client:
        inputs = Inputs(latency_table=None if earlier is None else _table_id(client, earlier))
        job = client.submit(JobKind.PROFILE, spec, preset=preset, inputs=inputs, name=name)
        if not as_json:
            typer.echo(job.id)
        if wait:
            job = watch_to_the_end(client, job.id, as_json)
            if not as_json:
                typer.echo(job.latency_table)
        elif as_json:
            print_json(job)


@lut_app.command("list")
def list_tables(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List latency tables, newest first."""
    with service(url) as client:
        summaries = client.latency_tables()
    if as_json:
        typer.echo(TypeAdapter(list[LatencyTableSummary]).dump_json(summaries, indent=2).decode())
    else:
        Console(width=max(Console().width, LIST_WIDTH)).print(table_list(summaries))


@lut_app.command()
def show(
    table: TableOrFile,
    key: Annotated[str, typer.Option(metavar="TEXT", help="Only operators whose keys contain this.")] = "",
    url: Url = DEFAULT_URL,
) -> None:
    """Show what a latency table was measured on, and its rows with their quartiles."""
    with service(url) as client:
        document = _document(client, table)
    Console().print(table_details(_table(table, document), key))


@lut_app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Id of a latency table, or its JSON file.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Id of a latency table, or its JSON file.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Compare two latency tables: fingerprints, rows that one lacks, ratios of the others."""
    with service(url) as client:
        documents = [_document(client, name) for name in (before, after)]
    tables = [_table(name, document) for name, document in zip((before, after), documents, strict=True)]
    Console().print(table_diff(*tables))


@lut_app.command()
def verify(table: TableOrFile, url: Url = DEFAULT_URL) -> None:
    """Check a latency table's digest and every row. Exits with 1 where anything is wrong, each fault named.

    A file is held against the digest in its name, where it has one.
    """
    with service(url) as client:
        document = _document(client, table)
        wanted = Path(table).stem if Path(table).exists() else _table_id(client, table)
    digest, faults = table_digest(document), list(table_faults(document))
    if re.fullmatch("[0-9a-f]{64}", wanted) and wanted != digest:
        faults.insert(0, f"digest: {wanted} was asked for, the content has {digest}")
    for fault in faults:
        say(fault)
    typer.echo(f"latency table {digest}: {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}")
    if faults:
        raise typer.Exit(FAILED)


@lut_app.command()
def export(
    table: TableId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here, not to standard output.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a latency table's canonical JSON, whose sha256 is the table's id."""
    with service(url) as client:
        table_id = _table_id(client, table)
        content = verified(table_id, canonical_json(client.latency_table(table_id)).encode())
    if output is None:
        typer.echo(content.decode(), nl=False)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"{output}: {error.strerror}", param_hint="--output") from error


@lut_app.command()
def merge(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="Ids of latency tables, or JSON files.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Join the measured rows of tables of one fingerprint, add the table to the service and print its id.

    Of a row that several have measured, the first one's is taken.
    """
    with service(url) as client:
        documents = [_document(client, name) for name in tables]
        parts = [_table(name, document) for name, document in zip(tables, documents, strict=True)]
        try:
            merged = merged_table(parts)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        added = client.add_latency_table(merged.model_dump(mode="json", exclude_none=True))
    say(f"{len(merged.rows)} rows, {sum(not row.is_measured for row in merged.rows.values())} of them quarantined")
    typer.echo(added.id)


@lut_app.command()
def add(
    file: JsonFile,
    url: Url = DEFAULT_URL,
) -> None:
    """Add a latency table to the service, for example an imported one, and print its id."""
    document = sent_object(file)
    with service(url) as client:
        typer.echo(client.add_latency_table(document).id)


@lut_app.command("import", context_settings=TO_ANOTHER_PROGRAM)
def import_latency_table(context: typer.Context) -> None:
    """Convert a published latency table (options: fasterseg lut import --help)."""
    run_core("lut", "import", context.args)


@lut_app.command("sensitivities", context_settings=TO_ANOTHER_PROGRAM)
def show_sensitivities(context: typer.Context) -> None:
    """Show Table 2 of a table, and balanced weights (options: fasterseg lut sensitivities --help)."""
    run_core("lut", "sensitivities", context.args)


def _part(text: str) -> JsonObject:
    """I/N as a spec has it; networks are measured once the table is whole."""
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    if numbers is None:
        raise typer.BadParameter(f"{text!r} is not a part such as 1/3", param_hint="--part")
    part, parts = int(numbers[1]), int(numbers[2])
    return {"part": part, "parts": parts, **({"random_networks": 0} if parts > 1 else {})}


def _given(**options: JsonValue) -> JsonObject:
    """The options that were given; the preset has the others."""
    return {name: value for name, value in options.items() if value is not None}


def _document(client: FasterSegClient, name: str) -> JsonObject:
    """The table in a file, or else the one of an id."""
    if Path(name).exists():
        try:
            return json_object(name, Path(name).read_bytes())
        except OSError as error:
            raise typer.BadParameter(f"{name}: {error.strerror}") from error
    return client.latency_table(_table_id(client, name))


def _table(name: str, document: JsonObject) -> LatencyTable:
    try:
        return LatencyTable.model_validate(document)
    except ValidationError as error:
        raise typer.BadParameter(f"{name}: no latency table: {first_error(error)}") from error


def _table_id(client: FasterSegClient, name: str) -> str:
    """The whole id of a table that is named by it or by its first digits."""
    if re.fullmatch("[0-9a-f]{64}", name):
        return name
    if not re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},63}}", name):
        raise typer.BadParameter(f"{name!r} is neither a latency table's id nor a file; `fasterseg lut list` shows ids")
    found = [summary.id for summary in client.latency_tables() if summary.id.startswith(name)]
    if not found:
        raise typer.BadParameter(f"no latency table's id begins with {name}; `fasterseg lut list` shows them")
    if len(found) > 1:
        ids = ", ".join(table_id[: len(name) + SHORT] for table_id in found)
        raise typer.BadParameter(f"{name} begins the ids {ids}: give more digits")
    return found[0]
