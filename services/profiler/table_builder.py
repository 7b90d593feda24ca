"""The latency table of a search space on this machine: every operator that its networks can execute (appendix E)."""

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict
from functools import partial

from fasterseg_core.config import NUM_CLASSES, ProfileConfig
from fasterseg_core.latency_table import Fingerprint, LatencyRow, LatencyTable, RowState
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from services.profiler.protocol import MeasurementProgress, Protocol, measure
from services.profiler.runners import Runner, operator_workload


def build_table(
    config: ProfileConfig, runner: Runner, known: Mapping[OperatorSpec, LatencyRow] | None = None
) -> Generator[MeasurementProgress, None, LatencyTable]:
    """Yields after every measurement and returns the table; operators that could not be measured are quarantined in it.

    The canary is one of the operators, and measured first: all rows that follow, also those of a later attempt, and
    the networks, are at the speed at which it takes what its row says. A part of a table has that row, too.

    Known rows, which must be of this fingerprint, are taken over and count as done.

    Raises:
        MeasurementError: not even the canary could be measured.
    """
    specs = space_specs(config.space, config.resolution, NUM_CLASSES[config.dataset])
    canary = canary_spec(specs)
    asked = dict.fromkeys((canary, *_by_size(specs)[config.part - 1 :: config.parts]))  # by size: parts are alike
    rows = yield from measure(
        {spec.key: partial(operator_workload, spec) for spec in asked},
        operator_workload(canary),
        runner,
        protocol_of(config),
        {spec.key: row for spec, row in (known or {}).items()},
        reference_ms(canary, known or {}),
    )
    return LatencyTable(fingerprint(config, runner), {OperatorSpec.from_key(key): row for key, row in rows.items()})


def protocol_of(config: ProfileConfig) -> Protocol:
    """How a table is measured."""
    return Protocol(passes=config.passes, samples=config.samples)


def canary_spec(specs: list[OperatorSpec]) -> OperatorSpec:
    """The operator whose time is watched throughout: one of middling size."""
    return _by_size(specs)[len(specs) // 2]


def reference_ms(canary: OperatorSpec, rows: Mapping[OperatorSpec, LatencyRow]) -> float | None:
    """The time of the canary to which all times of these rows are related; none where it has not been measured."""
    row = rows.get(canary)
    return row.milliseconds if row is not None and row.state is RowState.MEASURED else None


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
        protocol=protocol_of(config).describe(identity.clock),
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


def _by_size(specs: list[OperatorSpec]) -> list[OperatorSpec]:
    return sorted(specs, key=lambda spec: (spec.macs, spec.key))
