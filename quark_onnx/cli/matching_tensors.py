"""Which tensors of a quantized model, of any tool, hold the values of which tensors of the float model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.opened_model import open_model
from quark_onnx.graph import Model, Value
from quark_onnx.graph.passes import lift
from quark_onnx.graph.view import is_op
from quark_onnx.stages.prepare import prepare


def open_lifted(path: Path, libraries: Sequence[str]) -> Model:
    """A model whose constants are initializers: tools write the same weights as either, and both must match."""
    model = open_model(path, libraries)
    lift(model)
    return model


def match(model: Model, quantized: Model) -> tuple[dict[str, str], Model]:
    """Tensor → its dequantized counterpart, and the float model that has these tensors.

    That is the model as it is, or as `prepare` leaves it, whichever the quantized model was made from. Names alone do
    not tell: Conv → BatchNormalization, once folded, gives another value the name of the convolution's output. So a
    tensor counts only where it has the same readers in both models.
    """
    opset = quantized.graph.opset_imports.get("", 13)
    candidates = [model, prepare(model, opset=opset, quantizers=False).model]
    pairs = [_pairs(candidate, quantized) for candidate in candidates]
    best = max(range(len(candidates)), key=lambda index: len(pairs[index]))
    return pairs[best], candidates[best]


def _pairs(model: Model, quantized: Model) -> dict[str, str]:
    ours, theirs = _values(model), _values(quantized)
    return {
        name: result
        for name, result in quantized_values(quantized).items()
        if name in ours and _readers(theirs[result]) <= _readers(ours[name])
    }


def _values(model: Model) -> dict[str, Value]:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {value.name or "": value for value in values}


def _readers(value: Value) -> set[str]:
    """Operator types that read the value, directly or through quantizers; "output" for the user."""
    found = {"output"} if value.is_graph_output() else set()
    for node in value.consumers():
        found |= _readers(node.outputs[0]) if is_op(node, "QuantizeLinear", "DequantizeLinear") else {node.op_type}
    return found
