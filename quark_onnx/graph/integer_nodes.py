"""Nodes that work on integers before we come: of a model that another tool has quantized, in whole or in part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from quark_onnx.core.errors import ModelError
from quark_onnx.core.operators import INTEGER_OPERATORS, LAYERS
from quark_onnx.graph.view import is_constant, is_op

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def is_integer(node: ir.Node) -> bool:
    """Whether a node computes on integers, makes them, or takes floats back from them; of constants it does not."""
    if node.op_type in QUANTIZERS:
        return not of_constants(node)
    return node.op_type in INTEGER_OPERATORS or node.op_type.startswith("QLinear")


def of_constants(node: ir.Node) -> bool:
    """Whether a quantizer has nothing but constants to read, or what another one makes of constants."""
    first, *parameters = node.inputs
    maker = None if first is None else first.producer()
    folded = is_constant(first) or (maker is not None and maker.op_type in QUANTIZERS and of_constants(maker))
    return folded and all(value is None or is_constant(value) for value in parameters)


def refuse_quantized(model: ir.Model) -> None:
    """Activations that have quantizers already would get another one. Weights stored as integers are weights.

    Raises:
        ModelError: the model has quantizers of activations.
    """
    found = [node for node in model.graph.all_nodes() if is_integer(node)]
    if any(node.op_type in QUANTIZERS for node in found):
        raise ModelError(f"the model is quantized already: it holds {_listed(found)}; pass the float model")


def told_of_integers(model: ir.Model) -> tuple[str, ...]:
    """What to say of a model that works on integers already, in whole or in part; nothing of a float model."""
    nodes = list(model.graph.all_nodes())
    found = [node for node in nodes if is_integer(node)]
    if not found:
        return ()
    if any(is_op(node, *LAYERS) for node in nodes):
        return (f"the model is quantized in part already: {_listed(found)} stay as they are, the rest is quantized",)
    return (f"the model is quantized already: {_listed(found)} leave no layer to quantize; pass the float model",)


def _listed(nodes: Sequence[ir.Node]) -> str:
    """How many of which operators, and where they begin."""
    kinds = Counter(node.op_type for node in nodes)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{counts} (the first is {nodes[0].name or nodes[0].outputs[0].name!r})"
