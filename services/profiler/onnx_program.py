"""An ONNX graph of this project run by torch, so that torch measures what other engines do, batch norms folded."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from services.profiler.errors import MeasurementError

Constants = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]


def load_program(model: bytes, device: torch.device, dtype: torch.dtype) -> Callable[[Sequence[Tensor]], Tensor]:
    """A function from the graph's inputs to its output, weights in `dtype` and channels last on `device`.

    Raises:
        MeasurementError: not a model, or one with an operator that this project's networks do not have.
    """
    try:
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise MeasurementError(f"torch_cuda cannot read the ONNX: {error}") from error
    proto = onnx.load_from_string(model)
    graph = proto.graph
    nodes, constants = _split(proto)
    weights = {
        name: torch.from_numpy(np.array(value)).to(device, dtype)
        for name, value in constants.items()
        if value.dtype == np.float32
    }
    weights = {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in weights.items()
    }
    names = [value.name for value in graph.input]

    def program(inputs: Sequence[Tensor]) -> Tensor:
        values = weights | dict(zip(names, inputs, strict=True))
        for node in nodes:
            values[node.output[0]] = _apply(node, values, constants)
        return values[graph.output[0].name]

    return program


def _split(proto: onnx.ModelProto) -> tuple[list[onnx.NodeProto], Constants]:
    """The nodes that depend on the graph's inputs, and the values of all others that they read."""
    graph = proto.graph
    dynamic = {value.name for value in graph.input}
    nodes, constant_nodes = [], []
    for node in graph.node:
        if dynamic.intersection(node.input):
            dynamic.update(node.output)
            nodes.append(node)
        else:
            constant_nodes.append(node)
    read = sorted({name for node in nodes for name in node.input if name and name not in dynamic})
    constants = helper.make_graph(
        constant_nodes,
        "constants",
        [],
        [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in read],
        graph.initializer,
    )
    model = helper.make_model(constants, opset_imports=proto.opset_import)
    return nodes, dict(zip(read, ReferenceEvaluator(model).run(None, {}), strict=True)) if read else {}


def _apply(node: onnx.NodeProto, values: Mapping[str, Tensor], constants: Constants) -> Tensor:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    match node.op_type:
        case "Identity":
            return values[node.input[0]].clone()  # an output is a tensor of its own
        case "Relu":
            return F.relu(values[node.input[0]])
        case "Concat":
            return torch.cat([values[name] for name in node.input], dim=attributes["axis"])
        case "Conv":
            x, weight = values[node.input[0]], values[node.input[1]]
            top, left, bottom, right = attributes["pads"]
            if (top, left) != (bottom, right):
                raise MeasurementError(f"torch_cuda has no Conv with the pads {attributes['pads']}")
            bias = values[node.input[2]] if len(node.input) > 2 else None
            return F.conv2d(
                x,
                weight,
                bias,
                stride=attributes["strides"],
                padding=(top, left),
                dilation=attributes["dilations"],
                groups=attributes["group"],
            )
        case "BatchNormalization":
            x, weight, bias, mean, variance = (values[name] for name in node.input)
            return F.batch_norm(x, mean, variance, weight, bias, eps=attributes["epsilon"])
        case "Resize":
            if (attributes["mode"], attributes["coordinate_transformation_mode"]) != (b"linear", b"align_corners"):
                raise MeasurementError("torch_cuda has no Resize but the linear one with aligned corners")
            size = [int(side) for side in constants[node.input[3]][2:]]
            return F.interpolate(values[node.input[0]], size=size, mode="bilinear", align_corners=True)
        case "Slice":
            return values[node.input[0]][_slices(*(constants[name].tolist() for name in node.input[1:]))]
        case "Pad":
            pads = constants[node.input[1]].tolist()
            rank = len(pads) // 2
            return F.pad(values[node.input[0]], [pads[i + end] for i in reversed(range(rank)) for end in (0, rank)])
        case other:
            raise MeasurementError(f"torch_cuda has no ONNX operator {other}")


def _slices(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> tuple[slice, ...]:
    along = {axis: slice(start, end, step) for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)}
    return tuple(along.get(axis, slice(None)) for axis in range(4))
