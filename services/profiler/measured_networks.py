"""Networks measured whole, beside the sum of their operators (appendix E)."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial

from fasterseg_core.architecture import Architecture
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, RowState, estimate
from services.profiler.protocol import MeasurementProgress, Protocol, measure
from services.profiler.random_networks import network_workload
from services.profiler.runners import Runner
from services.profiler.table_builder import canary_of


@dataclass(frozen=True, kw_only=True)
class NetworkLatency:
    """One network: its operators' sum and how many are executed, its MACs, and its latency measured whole."""

    architecture: str  # digest
    predicted_ms: float
    num_executed: int
    macs: int
    measured_ms: float


@dataclass(frozen=True)
class MeasuredNetworks:
    """Networks measured whole; `left_out` says why others were not."""

    networks: tuple[NetworkLatency, ...]
    left_out: dict[str, str] = field(default_factory=dict)  # digest -> reason


def measure_networks(
    architectures: Sequence[Architecture], table: LatencyTable, runner: Runner, protocol: Protocol
) -> Generator[MeasurementProgress, None, MeasuredNetworks]:
    """Yields after every measurement and returns the networks, at the speed at which the table was measured.

    The runner must be of the table's fingerprint.

    Raises:
        MeasurementError: the canary could not be measured.
    """
    resolution, num_classes = table.fingerprint.resolution, table.fingerprint.num_classes
    workloads = {a.digest: partial(network_workload, a, resolution, num_classes) for a in architectures}
    canary, reference_ms = canary_of(table.rows)
    rows = yield from measure(workloads, canary, runner, protocol, reference_ms=reference_ms)
    networks, left_out = [], {}
    for architecture in architectures:
        row = rows[architecture.digest]
        try:
            latency = estimate(architecture, table)
        except MissingLatencyError as error:
            left_out[architecture.digest] = str(error)
            continue
        if row.state is RowState.QUARANTINED:
            left_out[architecture.digest] = row.reason
            continue
        networks.append(
            NetworkLatency(
                architecture=architecture.digest,
                predicted_ms=latency.milliseconds,
                num_executed=latency.num_executed,
                macs=sum(operator.spec.macs for operator in latency.operators),
                measured_ms=row.milliseconds,
            )
        )
    return MeasuredNetworks(tuple(networks), left_out)
