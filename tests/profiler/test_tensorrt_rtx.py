"""TensorRT-RTX parses and builds on a CPU what the runner gives TensorRT; only a GPU can run it.

A sample in every run of the tests, the paper's whole space by `make test-nvidia`.
"""

from dataclasses import dataclass

import onnx
import pytest

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import Precision, ProfileConfig
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from fasterseg_core.search_space import Resolution
from fasterseg_core.table_rows import neighbours_of
from services.profiler.errors import MeasurementError
from services.profiler.half_precision import to_fp16
from services.profiler.neighbours import workload_between
from services.profiler.random_networks import network_workload
from services.profiler.tensorrt_runner import build_engine
from tests.profiler.builders import KEYS, an_unknown_operator

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra `dev` has TensorRT-RTX for Linux on x86-64 only")

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")  # of its timing cache, which is empty

SAMPLE = [key for key in KEYS if "x12" not in key]
PAPER = ProfileConfig()
PAPER_SPECS = space_specs(PAPER.space, PAPER.resolution, 19)
PAPER_KEYS = [
    spec.key
    for spec in dict.fromkeys((*PAPER_SPECS, *(other for spec in PAPER_SPECS for other in neighbours_of(spec))))
]
GIVEN = {Precision.FP32: bytes, Precision.FP16: to_fp16}  # what the runner makes of a workload's ONNX
FLOAT = {Precision.FP32: "FLOAT", Precision.FP16: "HALF"}

in_both_precisions = pytest.mark.parametrize("precision", list(Precision))


@dataclass(frozen=True)
class Layer:
    """A layer as the parser reads it."""

    kind: str
    types: frozenset[str]  # of its outputs
    interpolation: tuple[str, str] | None = None  # of a resize


def operator(key: str, precision: Precision = Precision.FP32) -> bytes:
    return GIVEN[precision](workload_between(OperatorSpec.from_key(key)).onnx)


def table_7(precision: Precision, resolution: Resolution) -> bytes:
    return GIVEN[precision](network_workload(TABLE_7, resolution, 19).onnx)


def parsed(model: bytes) -> list[Layer]:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model)
    return [read(network.get_layer(i)) for i in range(network.num_layers)]


def read(layer) -> Layer:
    types = frozenset(layer.get_output(i).dtype.name for i in range(layer.num_outputs))
    if layer.type != trt.LayerType.RESIZE:
        return Layer(layer.type.name, types)
    layer.__class__ = trt.IResizeLayer
    return Layer(layer.type.name, types, (layer.resize_mode.name, layer.coordinate_transformation.name))


@in_both_precisions
@pytest.mark.parametrize("key", SAMPLE)
def test_builds_every_operator(key: str, precision: Precision) -> None:
    plan, _ = build_engine(trt, operator(key, precision))

    assert plan


def test_builds_with_a_timing_cache_that_is_damaged() -> None:
    plan, cache = build_engine(trt, operator(SAMPLE[0]), b"no timing cache")

    assert plan
    assert cache != b"no timing cache"


@in_both_precisions
@pytest.mark.parametrize("key", [key for key in SAMPLE if key.startswith(("zoomed", "upsample"))])
def test_reads_every_interpolation_as_bilinear_with_aligned_corners(key: str, precision: Precision) -> None:
    interpolations = [layer.interpolation for layer in parsed(operator(key, precision)) if layer.kind == "RESIZE"]

    assert set(interpolations) == {("LINEAR", "ALIGN_CORNERS")}


@in_both_precisions
@pytest.mark.parametrize("key", SAMPLE)
def test_every_number_is_in_the_precision_asked(key: str, precision: Precision) -> None:
    types = {name for layer in parsed(operator(key, precision)) for name in layer.types}

    assert types - {"INT64"} == {FLOAT[precision]}  # INT64: sizes


@in_both_precisions
def test_builds_a_network(precision: Precision) -> None:
    plan, _ = build_engine(trt, table_7(precision, Resolution(height=71, width=90)))

    assert plan


def test_the_same_model_gives_the_same_engine() -> None:
    first, cache = build_engine(trt, operator(SAMPLE[0]))

    again, _ = build_engine(trt, operator(SAMPLE[0]), cache)

    assert again == first


@pytest.mark.parametrize(
    ("model", "reason"),
    [(b"no model", "MODEL_DESERIALIZE_FAILED"), (an_unknown_operator(), "Unheard")],
    ids=["garbage", "unknown"],
)
def test_a_refused_model_names_the_parsers_reason(model: bytes, reason: str) -> None:
    with pytest.raises(MeasurementError, match=f"TensorRT could not parse the ONNX: .*{reason}"):
        build_engine(trt, model)


def test_an_empty_model_is_refused() -> None:
    with pytest.raises(MeasurementError, match="TensorRT could not build an engine"):
        build_engine(trt, b"")


def test_a_model_of_two_precisions_is_refused() -> None:
    mixed = onnx.load_from_string(operator("conv 8->16 9x11 /1", Precision.FP16))
    mixed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    with pytest.raises(MeasurementError):
        build_engine(trt, mixed.SerializeToString())


# ---- minutes long: make test-nvidia ---------------------------------------------------------------------------------


@pytest.mark.nvidia
@in_both_precisions
@pytest.mark.parametrize("key", PAPER_KEYS)
def test_builds_the_papers_space(key: str, precision: Precision) -> None:
    plan, _ = build_engine(trt, operator(key, precision))

    assert plan


@pytest.mark.nvidia
@in_both_precisions
def test_builds_table_7(precision: Precision) -> None:
    plan, _ = build_engine(trt, table_7(precision, PAPER.resolution))

    assert plan
