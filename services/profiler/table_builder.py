"""The latency table of a search space on this machine: every operator that its networks can execute (appendix E)."""

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from functools import partial

from fasterseg_core.config import NUM_CLASSES, ProfileConfig
from fasterseg_core.latency_table import Fingerprint, LatencyRow, LatencyTable, RowState
from fasterseg_core.operator_specs import OperatorSpec
from fasterseg_core.table_rows import asked_rows, canary_spec, neighbours_around, neighbours_of
from services.profiler.neighbours import time_of, without_neighbours, workload_between
from services.profiler.protocol import MeasurementProgress, measure, protocol_of
from services.profiler.runners import Runner, Workload, operator_workload

Rows = Mapping[OperatorSpec, LatencyRow]


def build_table(
    config: ProfileConfig, runner: Runner, known: Rows | None = None
) -> Generator[MeasurementProgress, None, LatencyTable]:
    """Yields after every measurement and returns the table; operators that could not be measured are quarantined in it.

    Operators are measured between neighbours, whose own rows are in the table, too, unless the configuration wants
    them measured alone. The canary is one of the operators and is measured in the first batch: all rows that follow,
    also those of a later attempt, and the networks, are at the speed that it had then. A part of a table has it, too.

    Known rows, which must be of this fingerprint, are taken over and count as done.

    Raises:
        MeasurementError: not even the canary could be measured.
    """
    rows = dict(known or {})
    canary, asked = asked_rows(config)
    can_err_ms = math.inf if config.accept_noise else runner.identity.clock_error_ms
    workload = operator_workload if config.alone else workload_between
    specs = {spec.key: spec for spec in asked}
    measuring = measure(
        {key: partial(workload, spec) for key, spec in specs.items()},
        workload(canary),
        runner,
        protocol_of(config),
        {spec.key: row for spec, row in rows.items()},
        measured_ms(canary, neighbours_around(config, canary), rows),
    )
    for progress in measuring:
        finished = {}
        for key in sorted(progress.finished, key=list(specs).index):  # an operator's row needs its neighbours'
            around = [rows[neighbour] for neighbour in neighbours_around(config, specs[key])]
            finished[key] = rows[specs[key]] = without_neighbours(
                specs[key], progress.finished[key], around, can_err_ms
            )
        yield replace(progress, finished=finished)
    return LatencyTable(fingerprint(config, runner), {spec: rows[spec] for spec in asked})


def canary_of(rows: Rows) -> tuple[Workload, float | None]:
    """The canary of a table as it was measured, and its milliseconds then; None where it could not be measured."""
    canary = canary_spec(rows.keys())
    neighbours = neighbours_of(canary)
    around = neighbours if rows.keys() >= set(neighbours) else ()
    workload = workload_between(canary) if around else operator_workload(canary)
    return workload, measured_ms(canary, around, rows)


def measured_ms(spec: OperatorSpec, around: tuple[OperatorSpec, ...], rows: Rows) -> float | None:
    """What an operator took as it was measured, its neighbours included; None where something of it is quarantined."""
    if any(part not in rows or rows[part].state is RowState.QUARANTINED for part in (spec, *around)):
        return None
    return rows[spec].milliseconds + time_of([rows[neighbour] for neighbour in around])


def fingerprint(config: ProfileConfig, runner: Runner) -> Fingerprint:
    """What the numbers of a table depend on."""
    identity = runner.identity
    return Fingerprint(
        engine=identity.engine,
        engine_version=identity.engine_version,
        device=identity.device,
        driver=identity.driver,
        threads=identity.threads,
        precision=identity.precision,
        protocol=protocol_of(config).describe(identity.clock) + ("" if config.alone else ", between neighbours"),
        resolution=config.resolution,
        num_classes=NUM_CLASSES[config.dataset],
    )


def fingerprint_differences(earlier: Fingerprint, now: Fingerprint) -> list[str]:
    """Each field in which two fingerprints differ, with both values; rows may be shared where there is none."""
    before, after = asdict(earlier), asdict(now)
    return [
        f"{name} was {json.dumps(before[name])} and is {json.dumps(after[name])}"
        for name in before
        if before[name] != after[name]
    ]
