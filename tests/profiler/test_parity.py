"""Each operator has one definition: what differs from it in one place alone is refused before it is timed.

The places are the module as trained, the ONNX of it, and the graph that an engine executes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fasterseg_core.blocks import build_operator, with_random_norms
from fasterseg_core.config import Engine
from fasterseg_core.onnx_export import export_onnx
from fasterseg_core.operator_specs import OperatorSpec, Structure, input_shapes
from fasterseg_core.search_space import OPERATORS, Operator
from services.profiler.engines import open_runner
from services.profiler.errors import MeasurementError
from services.profiler.runners import Array, Runner, RunnerIdentity, Workload, verify

ZOOMED = (Operator.ZOOMED_CONV, Operator.ZOOMED_CONV_X2)
INTERPOLATED = (*ZOOMED, Structure.UPSAMPLE)
CONVOLVED = (Operator.CONV, Operator.CONV_X2, *ZOOMED, Structure.STEM, Structure.PREDICTION)
ACTIVATED = (*OPERATORS, Structure.STEM, Structure.POINTWISE, Structure.PREDICTION)

Kind = Operator | Structure


@pytest.fixture(scope="module", params=[Engine.ONNXRUNTIME, Engine.OPENVINO])
def engine(request: pytest.FixtureRequest) -> Runner:
    return open_runner(request.param)


@st.composite
def specs(draw: st.DrawFn, kinds: Sequence[Kind]) -> OperatorSpec:
    """Operators of any of these kinds at small even and odd sizes, none of them the identity."""
    kind = draw(st.sampled_from(kinds))
    c_in, more = draw(st.integers(2, 6)), draw(st.integers(1, 3))
    height, width = draw(st.integers(5, 12)), draw(st.integers(5, 12))
    match kind:
        case Structure.STEM:
            c_in, c_out, height, width, stride = 3, 2 * more, 4 * height, 4 * width, 8
        case Structure.UPSAMPLE:
            c_out, stride = c_in, draw(st.sampled_from([2, 4]))
        case Structure():
            c_out, stride = c_in + more, 1
        case Operator():
            c_in, c_out, stride = 2 * c_in, 2 * (c_in + more), draw(st.sampled_from([1, 2]))
    return OperatorSpec(operator=kind, c_in=c_in, c_out=c_out, height=height, width=width, stride=stride)


def a_module(spec: OperatorSpec) -> nn.Module:
    """As after training: batch norms far from the identity, or their order would not matter."""
    torch.manual_seed(0)
    return with_random_norms(build_operator(spec))


def a_workload(spec: OperatorSpec, module: nn.Module | None = None, model: bytes | None = None) -> Workload:
    """An operator, its module or its ONNX replaced by another."""
    workload = Workload(module or a_module(spec), input_shapes(spec))
    workload.__dict__["onnx"] = model or an_onnx(spec)
    return workload


@cache
def an_onnx(spec: OperatorSpec) -> bytes:
    return export_onnx(a_module(spec), input_shapes(spec))


# ---- the module as trained ------------------------------------------------------------------------------------------


class Replaced(TorchFunctionMode):
    """Calls other functions in place of some of torch's."""

    def __init__(self, replacements: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self._replacements.get(function, function)(*args, **(kwargs or {}))


class AlteredModule(nn.Module):
    def __init__(self, module: nn.Module, replacements: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.module, self._replacements = module, replacements

    def forward(self, *inputs: Tensor) -> Tensor:
        with Replaced(self._replacements):
            return self.module(*inputs)


def shifted_conv2d(x: Tensor, weight: Tensor, bias=None, stride=1, padding=(0, 0), dilation=1, groups=1) -> Tensor:
    """A convolution whose padding is all after the map: of stride 2, it reads the odd pixels for the even ones."""
    height, width = padding
    return F.conv2d(F.pad(x, (0, 2 * width, 0, 2 * height)), weight, bias, stride, 0, dilation, groups)


def unchanged(x: Tensor, inplace: bool = False) -> Tensor:
    return x


def activated_batch_norm(x: Tensor, *rest: object, **named: object) -> Tensor:
    return F.batch_norm(torch.relu(x), *rest, **named)


LINEAR = {torch.relu_: unchanged, F.relu: unchanged}


MODULES = {  # what is called in place of torch's functions, and the operators that then compute something else
    "nearest": ({F.interpolate: lambda x, size, **_: F.interpolate(x, size=size, mode="nearest")}, INTERPOLATED),
    "corners": (
        {F.interpolate: lambda x, size, **_: F.interpolate(x, size=size, mode="bilinear", align_corners=False)},
        INTERPOLATED,
    ),
    "shifted": ({F.conv2d: shifted_conv2d}, CONVOLVED),
    "linear": (LINEAR, ACTIVATED),
    "activation first": (LINEAR | {F.batch_norm: activated_batch_norm}, ACTIVATED),
}


@pytest.mark.parametrize("alteration", MODULES)
@settings(max_examples=8)
@given(data=st.data())
def test_a_module_that_differs_from_its_onnx_is_refused(engine: Runner, alteration: str, data: st.DataObject) -> None:
    replacements, kinds = MODULES[alteration]
    spec = data.draw(specs(kinds))
    workload = a_workload(spec, module=AlteredModule(a_module(spec), replacements))

    with pytest.raises(MeasurementError):
        verify(engine, workload)


@settings(max_examples=40)
@given(spec=specs((*ACTIVATED, Structure.UPSAMPLE, Structure.CONCAT)))
def test_an_operator_that_is_the_same_everywhere_is_taken(engine: Runner, spec: OperatorSpec) -> None:
    assert verify(engine, a_workload(spec, module=AlteredModule(a_module(spec), {}))) < 1e-4


# ---- its ONNX, and what an engine executes --------------------------------------------------------------------------


def attributes(**changes: object) -> Callable[[onnx.GraphProto, onnx.NodeProto], None]:
    def change(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name not in changes]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in changes.items())])

    return change


def drop(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]


def other_stride(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    (stride, _) = next(attribute.ints for attribute in node.attribute if attribute.name == "strides")
    attributes(strides=[3 - stride] * 2)(graph, node)


def swap(graph: onnx.GraphProto, relu: onnx.NodeProto) -> None:
    """Activates what the node before reads, not what it gives."""
    (before,) = (node for node in graph.node if relu.input[0] in node.output)
    (first, last), between = (before.input[0], relu.output[0]), relu.input[0]
    relu.input[0], relu.output[0], before.input[0], before.output[0] = first, between, between, last
    nodes = [relu if node == before else before if node == relu else node for node in list(graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)


@dataclass(frozen=True)
class Alteration:
    """A change of one node of a type, in these kinds of operators."""

    node: str
    kinds: Sequence[Kind]
    change: Callable[[onnx.GraphProto, onnx.NodeProto], None]

    def nodes(self, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        return [node for node in data_nodes(graph) if node.op_type == self.node]

    def apply(self, model: bytes, number: int) -> bytes:
        proto = onnx.load_from_string(model)
        self.change(proto.graph, self.nodes(proto.graph)[number])
        return bytes(proto.SerializeToString())


def data_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that depend on the graph's inputs; the others compute sizes."""
    dependent = {value.name for value in graph.input}
    for node in graph.node:
        if dependent.intersection(node.input):
            dependent.update(node.output)
            yield node


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
GRAPHS = {
    "nearest": Alteration("Resize", INTERPOLATED, attributes(**NEAREST)),
    "half pixel": Alteration("Resize", INTERPOLATED, attributes(coordinate_transformation_mode="half_pixel")),
    "asymmetric": Alteration("Resize", INTERPOLATED, attributes(coordinate_transformation_mode="asymmetric")),
    "shifted": Alteration("Conv", (Operator.CONV, Operator.CONV_X2, *ZOOMED), attributes(pads=[0, 0, 2, 2])),
    "strides": Alteration("Conv", ACTIVATED, other_stride),
    "linear": Alteration("Relu", ACTIVATED, drop),
    "activation first": Alteration("Relu", tuple(kind for kind in ACTIVATED if kind is not Operator.SKIP), swap),
    "unshifted skip": Alteration("Slice", (Operator.SKIP,), drop),
}


@dataclass(frozen=True)
class AlteringRunner:
    """An engine that does something else with one node than the graph says."""

    engine: Runner
    alteration: Alteration
    number: int

    @property
    def identity(self) -> RunnerIdentity:
        return self.engine.identity

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        altered = Workload(workload.module, workload.input_shapes)
        altered.__dict__["onnx"] = self.alteration.apply(workload.onnx, self.number)
        return self.engine.run(altered, inputs)

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        return self.engine.benchmark(workload, samples)

    def sm_mhz(self) -> int | None:
        return self.engine.sm_mhz()

    def built(self, workload: Workload) -> dict[str, bytes]:
        return self.engine.built(workload)


@st.composite
def altered_operators(draw: st.DrawFn, alteration: Alteration) -> tuple[OperatorSpec, int]:
    """An operator, and which of its nodes to alter."""
    drawn = specs(alteration.kinds)
    spec = draw(drawn.filter(lambda spec: spec.stride == 2) if alteration.node == "Slice" else drawn)
    graph = onnx.load_from_string(an_onnx(spec)).graph
    return spec, draw(st.integers(0, len(alteration.nodes(graph)) - 1))


@pytest.mark.parametrize("name", GRAPHS)
@settings(max_examples=8)
@given(data=st.data())
def test_a_graph_that_differs_from_its_module_is_refused(engine: Runner, name: str, data: st.DataObject) -> None:
    alteration = GRAPHS[name]
    spec, number = data.draw(altered_operators(alteration))
    model = alteration.apply(an_onnx(spec), number)

    with pytest.raises(MeasurementError):
        verify(engine, a_workload(spec, model=model))


@pytest.mark.parametrize("name", GRAPHS)
@settings(max_examples=4)
@given(data=st.data())
def test_an_engine_that_executes_another_graph_is_refused(engine: Runner, name: str, data: st.DataObject) -> None:
    spec, number = data.draw(altered_operators(GRAPHS[name]))

    with pytest.raises(MeasurementError):
        verify(AlteringRunner(engine, GRAPHS[name], number), a_workload(spec))
