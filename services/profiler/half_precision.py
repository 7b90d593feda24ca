"""An fp32 ONNX graph of this project in fp16: what a strongly typed engine needs to compute in fp16."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def to_fp16(model: bytes) -> bytes:
    """The graph with its weights, inputs and outputs in fp16; the constants of Resize stay fp32, as ONNX asks."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for tensor in _float_tensors(graph, kept):
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]
    return bytes(proto.SerializeToString(deterministic=True))


def _float_tensors(graph: onnx.GraphProto, kept: set[str]) -> Iterator[TensorProto]:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.t.data_type == TensorProto.FLOAT and node.output[0] not in kept:
                yield attribute.t
