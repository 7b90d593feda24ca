import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fasterseg_core.operator_specs import OperatorSpec
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.errors import MeasurementError
from services.profiler.half_precision import to_fp16
from services.profiler.onnx_program import load_program
from services.profiler.random_networks import network_workload, random_architectures
from services.profiler.runners import Workload, operator_workload
from tests.profiler.builders import KEYS

SPACE = SearchSpace(num_layers=4, expansion_ratios=(1, 2), student_ratio=1)
ODD = Resolution(height=70, width=101)
WORKLOADS = [
    *(pytest.param(operator_workload(OperatorSpec.from_key(key)), id=key) for key in KEYS),
    *(
        pytest.param(network_workload(architecture, ODD, 3), id=f"network {number}")
        for number, architecture in enumerate(random_architectures(SPACE, 2))
    ),
]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_torch_runs_the_graph_as_it_runs_the_module(workload: Workload) -> None:
    inputs = workload.random_inputs()

    program = load_program(workload.onnx, torch.device("cpu"), torch.float32)

    with torch.no_grad():
        output = program([torch.from_numpy(x) for x in inputs]).numpy()
    np.testing.assert_allclose(output, workload.reference(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_graph_in_fp16_computes_nearly_the_same(workload: Workload) -> None:
    inputs = workload.random_inputs()
    model = to_fp16(workload.onnx)

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    output = session.run(None, dict(zip(names, [x.astype(np.float16) for x in inputs], strict=True)))[0]

    onnx.checker.check_model(onnx.load_from_string(model))
    expected = workload.reference(inputs)
    assert output.dtype == np.float16
    assert np.abs(output - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("model", [b"", b"no model"], ids=["empty", "garbage"])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    with pytest.raises(MeasurementError, match="torch_cuda cannot read the ONNX"):
        load_program(model, torch.device("cpu"), torch.float32)


def test_an_output_is_never_the_input_itself() -> None:
    x = torch.ones(1, 8, 9, 11)
    program = load_program(
        operator_workload(OperatorSpec.from_key("skip 8->8 9x11 /1")).onnx, torch.device("cpu"), torch.float32
    )

    assert program([x]).data_ptr() != x.data_ptr()


def test_an_unknown_operator_is_refused_by_name() -> None:
    class Tanh(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x)

    program = load_program(Workload(Tanh(), ((1, 1),)).onnx, torch.device("cpu"), torch.float32)

    with pytest.raises(MeasurementError, match="no ONNX operator Tanh"):
        program([torch.zeros(1, 1)])


@pytest.mark.parametrize(
    ("key", "node", "attribute", "value"),
    [
        ("zoomed_conv 8->8 14x26 /1", "Resize", "mode", "nearest"),
        ("zoomed_conv 8->8 14x26 /1", "Resize", "coordinate_transformation_mode", "half_pixel"),
        ("conv 8->8 14x26 /1", "Conv", "pads", [0, 0, 2, 2]),
    ],
)
def test_a_graph_that_it_would_compute_otherwise_is_refused(
    key: str, node: str, attribute: str, value: str | list[int]
) -> None:
    workload = operator_workload(OperatorSpec.from_key(key))
    model = onnx.load_from_string(workload.onnx)
    altered = next(each for each in model.graph.node if each.op_type == node)
    kept = [each for each in altered.attribute if each.name != attribute]
    del altered.attribute[:]
    altered.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])

    program = load_program(model.SerializeToString(), torch.device("cpu"), torch.float32)

    with pytest.raises(MeasurementError, match=f"torch_cuda has no {node}"):
        program([torch.from_numpy(x) for x in workload.random_inputs()])
