"""The latency table of a search space on this machine: every operator that its networks can execute (appendix E)."""

from collections.abc import Generator
from functools import partial

from fasterseg_core.config import NUM_CLASSES, ProfileConfig
from fasterseg_core.latency_table import Fingerprint, LatencyTable
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from services.profiler.protocol import MeasurementProgress, Protocol, measure
from services.profiler.runners import Runner, operator_workload


def build_table(config: ProfileConfig, runner: Runner) -> Generator[MeasurementProgress, None, LatencyTable]:
    """Yields after every measurement and returns the table; operators that could not be measured are quarantined in it.

    Raises:
        MeasurementError: not even the canary could be measured.
    """
    specs = space_specs(config.space, config.resolution, NUM_CLASSES[config.dataset])
    protocol = Protocol(passes=config.passes, samples=config.samples)
    workloads = {spec.key: partial(operator_workload, spec) for spec in specs}
    rows = yield from measure(workloads, operator_workload(canary_spec(specs)), runner, protocol)
    return LatencyTable(
        fingerprint(config, runner, protocol), {OperatorSpec.from_key(key): row for key, row in rows.items()}
    )


def canary_spec(specs: list[OperatorSpec]) -> OperatorSpec:
    """The operator whose time is watched throughout: one of middling size."""
    return sorted(specs, key=lambda spec: (spec.macs, spec.key))[len(specs) // 2]


def fingerprint(config: ProfileConfig, runner: Runner, protocol: Protocol) -> Fingerprint:
    """What the numbers of a table depend on."""
    identity = runner.identity
    return Fingerprint(
        engine=identity.engine,
        engine_version=identity.engine_version,
        device=identity.device,
        driver=identity.driver,
        threads=identity.threads,
        precision=identity.precision,
        protocol=protocol.describe(identity.clock),
        resolution=config.resolution,
        num_classes=NUM_CLASSES[config.dataset],
    )
