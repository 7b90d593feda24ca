"""A network or one operator as ONNX: fixed sizes, batch norms folded, the same bytes for the same weights.

The TorchScript exporter is used, though torch prefers its successor: it takes 12 ms for an operator against 800 ms, and
a table exports hundreds.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.onnx import register_custom_op_symbolic, unregister_custom_op_symbolic  # type: ignore[attr-defined]
from torch.onnx.symbolic_helper import parse_args

if TYPE_CHECKING:
    from torch.onnx._internal.torchscript_exporter.jit_utils import GraphContext

OPSET = 18


def export_onnx(module: nn.Module, input_shapes: Sequence[Sequence[int]]) -> bytes:
    """The ONNX of a module in evaluation mode; inputs are named input, input_2..., the output is named output.

    Sizes are constants of the graph, so every engine sees the same operators whatever it folds.
    """
    names = ["input", *(f"input_{i}" for i in range(2, len(input_shapes) + 1))]
    inputs = tuple(
        torch.zeros(tuple(shape), device=next(module.parameters(), torch.empty(0)).device) for shape in input_shapes
    )
    training = module.training
    buffer = io.BytesIO()
    with torch.no_grad(), _constant_sizes(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter warns of itself, see above
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # shapes are constants on purpose
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1")  # of the paddings of odd sizes
        torch.onnx.export(
            module.eval(),
            inputs,
            buffer,  # type: ignore[arg-type]  # this exporter writes to buffers as well
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["output"],
        )
    module.train(training)
    return buffer.getvalue()


@contextmanager
def _constant_sizes() -> Iterator[None]:
    """Writes interpolation as a Resize to a constant size; torch's own way computes the size in the graph."""
    name = "aten::upsample_bilinear2d"
    register_custom_op_symbolic(name, _resize_symbolic, OPSET)
    try:
        yield
    finally:
        unregister_custom_op_symbolic(name, OPSET)


@parse_args("v", "v", "b", "v")
def _resize_symbolic(
    g: "GraphContext",
    x: torch.Value,
    _output_size: torch.Value,
    align_corners: bool,
    _scale_factors: torch.Value,
) -> torch.Value:
    size = torch.tensor(g.original_node.output().type().sizes(), dtype=torch.int64)  # type: ignore[attr-defined]
    nothing = g.op("Constant", value_t=torch.empty(0))
    resized: torch.Value = g.op(
        "Resize",
        x,
        nothing,
        nothing,
        g.op("Constant", value_t=size),
        coordinate_transformation_mode_s="align_corners" if align_corners else "half_pixel",
        mode_s="linear",
    )
    return resized
