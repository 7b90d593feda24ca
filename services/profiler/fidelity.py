"""How well the sum of its operators predicts a network's latency (appendix E, Figure 3): both, on random networks.

A correlation alone hides bias, so errors are given too, and those of the simplest predictor, multiply-accumulates.
"""

import random
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TypedDict

import numpy as np
import torch

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, RowState, estimate
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.operator_specs import architecture_specs
from fasterseg_core.search_space import BRANCH_PAIRS, DOWNSAMPLE_RATES, OPERATORS, Resolution, SearchSpace
from services.profiler.protocol import MeasurementProgress, Protocol, measure
from services.profiler.runners import Runner, Workload, operator_workload
from services.profiler.table_builder import canary_spec

TRIES = 100  # for each random network that is wanted


@dataclass(frozen=True, kw_only=True)
class NetworkLatency:
    """One network's latency in milliseconds, as its operators' sum and as measured whole, and its size."""

    architecture: str  # digest
    predicted_ms: float
    measured_ms: float
    macs: int


class FidelityDocument(TypedDict):
    networks: list[dict[str, object]]
    left_out: dict[str, str]
    correlation: float
    kendall_tau: float
    mape: float
    bias: float
    worst: float
    macs_mape: float


@dataclass(frozen=True)
class Fidelity:
    """Predicted against measured latency over two or more networks; `left_out` says why others are not compared.

    Raises:
        ValueError: fewer than two networks.
    """

    networks: tuple[NetworkLatency, ...]
    left_out: dict[str, str] = field(default_factory=dict)  # digest -> reason

    def __post_init__(self) -> None:
        if len(self.networks) < 2:
            raise ValueError(f"a comparison needs two or more networks; left out: {self.left_out}")

    @property
    def relative_errors(self) -> list[float]:
        """(predicted - measured) / measured of each network."""
        return [network.predicted_ms / network.measured_ms - 1 for network in self.networks]

    @property
    def correlation(self) -> float:
        """Pearson's r."""
        predicted, measured = self._columns()
        return float(np.corrcoef(predicted, measured)[0, 1])

    @property
    def kendall_tau(self) -> float:
        """Kendall's tau: the share of pairs in the right order less the share in the wrong one."""
        predicted, measured = self._columns()
        upper = np.triu_indices(len(predicted), 1)
        signs = np.sign(np.subtract.outer(predicted, predicted) * np.subtract.outer(measured, measured))
        return float(signs[upper].mean())

    @property
    def mape(self) -> float:
        """The mean absolute relative error."""
        return float(np.abs(self.relative_errors).mean())

    @property
    def bias(self) -> float:
        """The mean relative error: negative where networks take longer than predicted."""
        return float(np.mean(self.relative_errors))

    @property
    def worst(self) -> float:
        """The largest absolute relative error."""
        return float(np.abs(self.relative_errors).max())

    @property
    def macs_mape(self) -> float:
        """The mean absolute relative error of "milliseconds per MAC", fitted for each network on all others."""
        rates = np.array([network.measured_ms / network.macs for network in self.networks])
        others = (rates.sum() - rates) / (len(rates) - 1)
        return float(np.abs(others / rates - 1).mean())

    def to_document(self) -> FidelityDocument:
        """The comparison as plain JSON values; errors are shares, 0.01 is 1 %."""
        return {
            "networks": [asdict(network) for network in self.networks],
            "left_out": self.left_out,
            "correlation": self.correlation,
            "kendall_tau": self.kendall_tau,
            "mape": self.mape,
            "bias": self.bias,
            "worst": self.worst,
            "macs_mape": self.macs_mape,
        }

    def _columns(self) -> tuple[list[float], list[float]]:
        return [n.predicted_ms for n in self.networks], [n.measured_ms for n in self.networks]


def compare(
    architectures: Sequence[Architecture], table: LatencyTable, runner: Runner, protocol: Protocol
) -> Generator[MeasurementProgress, None, Fidelity]:
    """Yields after every measurement and returns the comparison. The runner must be of the table's fingerprint.

    Raises:
        MeasurementError: the canary could not be measured.
        ValueError: fewer than two networks could be predicted and measured; the message says why.
    """
    resolution, num_classes = table.fingerprint.resolution, table.fingerprint.num_classes
    workloads = {a.digest: partial(network_workload, a, resolution, num_classes) for a in architectures}
    rows = yield from measure(workloads, operator_workload(canary_spec(list(table.rows))), runner, protocol)
    networks, left_out = [], {}
    for architecture in architectures:
        row = rows[architecture.digest]
        try:
            predicted_ms = estimate(architecture, table).milliseconds
        except MissingLatencyError as error:
            left_out[architecture.digest] = str(error)
            continue
        if row.state is RowState.QUARANTINED:
            left_out[architecture.digest] = row.reason
            continue
        networks.append(
            NetworkLatency(
                architecture=architecture.digest,
                predicted_ms=predicted_ms,
                measured_ms=row.milliseconds,
                macs=sum(spec.macs for _, spec in architecture_specs(architecture, resolution, num_classes)),
            )
        )
    return Fidelity(tuple(networks), left_out)


def network_workload(architecture: Architecture, resolution: Resolution, num_classes: int) -> Workload:
    """A whole network at one resolution, batch 1, with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = SegmentationNetwork(architecture, num_classes).eval()
    return Workload(network, ((1, 3, resolution.height, resolution.width),))


def random_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    """Different networks of the space, uniform over branches, paths, operators, ratios, and the two stems and heads.

    Raises:
        ValueError: the space seems to hold fewer.
    """
    generator = random.Random(seed)
    branches = [*((rate,) for rate in DOWNSAMPLE_RATES), *BRANCH_PAIRS]
    found: dict[Architecture, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            return list(found)
        ratio = generator.choice((space.student_ratio, space.teacher_ratio))
        chosen = (_random_branch(space, rate, ratio, generator) for rate in generator.choice(branches))
        found[Architecture(stem_ratio=ratio, branches=tuple(chosen))] = None
    raise ValueError(f"random_networks: {count} different networks were not found in this space; use fewer")


def _random_branch(space: SearchSpace, rate: int, head_ratio: int, generator: random.Random) -> Branch:
    path = generator.choice(list(space.paths(rate)))
    return Branch(
        tuple(
            Cell(
                operator=generator.choice(OPERATORS),
                downsample_rate=cell_rate,
                expansion_ratio=generator.choice(space.expansion_ratios) if layer < len(path) - 1 else head_ratio,
            )
            for layer, cell_rate in enumerate(path)
        )
    )
