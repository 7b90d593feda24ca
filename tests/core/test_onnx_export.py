import io

import onnx
import onnxruntime
import pytest
import torch

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.blocks import build_operator, with_random_norms
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.onnx_export import export_onnx
from fasterseg_core.operator_specs import OperatorSpec, input_shapes
from fasterseg_core.search_space import OPERATORS
from tests.builders import an_architecture

KEYS = [
    *(f"{operator} 6->10 7x9 /{stride}" for operator in OPERATORS for stride in (1, 2)),
    *(f"{operator} 6->10 8x12 /{stride}" for operator in OPERATORS for stride in (1, 2)),
    "stem 3->16 71x90 /8",
    "pointwise 6->10 7x9 /1",
    "upsample 6->6 7x9 /2",
    "upsample 3->3 71x90 /8",
    "concat 6->16 7x9 /1",
    "prediction 6->3 7x9 /1",
]


def run(model, inputs):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return torch.from_numpy(session.run(["output"], {n: x.numpy() for n, x in zip(names, inputs, strict=True)})[0])


def random_inputs(shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def operators_of(model):
    return {node.op_type for node in onnx.load(io.BytesIO(model)).graph.node}


def a_network(*rows):
    torch.manual_seed(0)
    return with_random_norms(SegmentationNetwork(an_architecture(*rows), 3))


@torch.no_grad()
@pytest.mark.parametrize("key", KEYS)
def test_onnx_runtime_computes_what_torch_does_for_an_operator(key):
    torch.manual_seed(0)
    spec = OperatorSpec.from_key(key)
    module, inputs = with_random_norms(build_operator(spec)), random_inputs(input_shapes(spec))

    model = export_onnx(module, input_shapes(spec))

    torch.testing.assert_close(run(model, inputs), module(*inputs), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (71, 90)], ids=str)
def test_onnx_runtime_computes_what_torch_does_for_a_network(size):
    network, (images,) = a_network(), random_inputs([(1, 3, *size)])

    model = export_onnx(network, [images.shape])

    torch.testing.assert_close(run(model, [images]), network(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_table_7_exports_and_runs():
    torch.manual_seed(0)
    network, (images,) = SegmentationNetwork(TABLE_7, 19).eval(), random_inputs([(1, 3, 64, 128)])

    torch.testing.assert_close(
        run(export_onnx(network, [images.shape]), [images]), network(images), rtol=1e-4, atol=1e-4
    )


def test_the_same_weights_give_the_same_bytes():
    assert export_onnx(a_network(), [(1, 3, 64, 96)]) == export_onnx(a_network(), [(1, 3, 64, 96)])


def test_other_weights_give_other_bytes():
    torch.manual_seed(1)

    assert export_onnx(SegmentationNetwork(an_architecture(), 3), [(1, 3, 64, 96)]) != export_onnx(
        a_network(), [(1, 3, 64, 96)]
    )


@pytest.mark.parametrize("size", [(64, 96), (71, 90)], ids=str)
def test_a_networks_graph_has_constant_sizes_and_folded_batch_norms(size):
    model = export_onnx(
        a_network("conv 8 1, skip 8 3, conv 8 2", "zoomed_conv_x2 8 2, skip 16 1, conv 16 2"), [(1, 3, *size)]
    )

    assert operators_of(model) == {"Conv", "Relu", "Resize", "Concat", "Constant"}


@pytest.mark.parametrize("key", KEYS)
def test_batch_norms_are_folded_in_every_operator(key):
    spec = OperatorSpec.from_key(key)

    model = export_onnx(build_operator(spec), input_shapes(spec))

    assert "BatchNormalization" not in operators_of(model)


def test_a_graph_is_valid_and_names_its_ends():
    graph = onnx.load(io.BytesIO(export_onnx(a_network(), [(1, 3, 71, 90)])))

    onnx.checker.check_model(graph, full_check=True)
    assert [node.name for node in graph.graph.input] == ["input"]
    assert [node.name for node in graph.graph.output] == ["output"]
    sizes = [
        [d.dim_value for d in node.type.tensor_type.shape.dim] for node in (*graph.graph.input, *graph.graph.output)
    ]
    assert sizes == [[1, 3, 71, 90], [1, 3, 71, 90]]


def test_every_interpolation_aligns_corners():
    graph = onnx.load(io.BytesIO(export_onnx(a_network(), [(1, 3, 64, 96)]))).graph

    modes = [
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in graph.node
        if node.op_type == "Resize"
    ]
    assert modes
    assert {(m["coordinate_transformation_mode"], m["mode"]) for m in modes} == {(b"align_corners", b"linear")}


@pytest.mark.parametrize("training", [True, False])
def test_exporting_leaves_the_module_as_it_was(training):
    network = a_network().train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    export_onnx(network, [(1, 3, 64, 96)])

    assert network.training is training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_auxiliary_predictions_are_not_exported():
    network = a_network()

    graph = onnx.load(io.BytesIO(export_onnx(network, [(1, 3, 64, 96)]))).graph

    # Batch norms are folded: weights and one bias for each convolution, sizes for each Resize.
    convolutions = sum(node.op_type == "Conv" for node in graph.node)
    modules = [m for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d) and "auxiliary" not in name]
    assert convolutions == len(modules)
