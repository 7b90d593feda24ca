"""What tests of the profiler need ready made."""

from collections.abc import Generator
from typing import TypeVar

import numpy as np
from onnx import TensorProto, helper

from fasterseg_core.config import DatasetName, ProfileConfig
from fasterseg_core.search_space import OPERATORS, Resolution, SearchSpace
from services.profiler.measured_networks import NetworkLatency
from services.profiler.protocol import MeasurementProgress

Result = TypeVar("Result")

SPACE = SearchSpace(num_layers=3, expansion_ratios=(2,), student_ratio=2)
CONFIG = ProfileConfig(
    space=SPACE, resolution=Resolution(height=64, width=64), dataset=DatasetName.CAMVID, passes=2, samples=2
)

KEYS = [
    *(
        f"{operator} 8->16 {size} /{stride}"
        for operator in OPERATORS
        for size in ("9x11", "8x12", "9x12")
        for stride in (1, 2)
    ),
    "skip 8->8 9x11 /1",
    "stem 3->16 64x96 /8",
    "stem 3->16 71x90 /8",
    "pointwise 8->16 9x11 /1",
    "upsample 8->8 8x12 /2",
    "upsample 8->8 9x11 /2",
    "upsample 3->3 71x90 /8",
    "concat 8->24 9x11 /1",
    "prediction 8->11 9x11 /1",
    "neighbours 8->8 9x11 /1",
]


def drain(measuring: Generator[MeasurementProgress, None, Result]) -> tuple[list[MeasurementProgress], Result]:
    reports = []
    while True:
        try:
            reports.append(next(measuring))
        except StopIteration as end:
            return reports, end.value


def a_network(predicted_ms: float, num_executed: int, measured_ms: float, macs: int = 100) -> NetworkLatency:
    return NetworkLatency(
        architecture=f"{predicted_ms:064}",
        predicted_ms=predicted_ms,
        num_executed=num_executed,
        macs=macs,
        measured_ms=measured_ms,
    )


def networks(slope: float, operator_ms: float, fixed_ms: float, noise: float = 0.0) -> list[NetworkLatency]:
    generator = np.random.default_rng(0)
    drawn = [(generator.uniform(20, 100), int(generator.integers(20, 40))) for _ in range(12)]
    return [
        a_network(
            sum_ms,
            count,
            (slope * sum_ms + operator_ms * count + fixed_ms) * generator.normal(1, noise),
            macs=round(1e6 * sum_ms),
        )
        for sum_ms, count in drawn
    ]


def an_unknown_operator() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 8, 9, 12)) for name in ("input", "output")]
    node = helper.make_node("Unheard", ["input"], ["output"], domain="nowhere")
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("nowhere", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
