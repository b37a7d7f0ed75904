"""A QDQ model computed as AIMET's simulator computes it, to the bit: ties are rounded up, nothing is fused.

    QuantizeLinear → DequantizeLinear   becomes   (clamp(⌊v / s + (z − lo + ½)⌋, 0, hi − lo) − (z − lo)) · s

in float32, as `quantizer.quantize_half_up` does. Both differ at ties only, and below a strict grid, which leaves out
the lowest code of its type. But pixels of 8 bits are often ties in all their values, and in a network of many layers a
code that differs changes many others. Run it without onnxruntime's optimizations, which add up products in another
order. It takes two to four times as long as the fast simulation.

Grids of more than 16 bits, for which there is no QuantizeLinear, are written out in the same way, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.engine.compare import quantizer_pairs
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.edit import add_constant, new_node, remove, take_over
from quark_onnx.graph.view import constant, is_op

Step: TypeAlias = "tuple[str, Value | NDArray[Any] | None]"
"""An operator, and its second operand if it has one."""


def exact(quantized: Model, lowest: Mapping[str, int] | None = None) -> Model:
    """A copy of a model that `apply` made with the quantizers of its activations written out; scales per tensor.

    Args:
        lowest: quantized tensor → the lowest code of its grid, where it is not that of the type.
    """
    model = io.copy(quantized)
    for tensor, quantize, restore in _pairs(model):
        scale, zero = quantize.inputs[1], constant(quantize.inputs[2])
        assert scale is not None and zero is not None
        info = np.iinfo(zero.dtype)
        first = (lowest or {}).get(tensor, info.min)
        above = np.asarray(zero.astype(np.int32) - first, np.float32)
        _write_out(model.graph, quantize, restore, _steps(scale, above, info.max - first))
    return model


def widened(quantized: Model, wide: Mapping[str, tuple[QParams, Format]]) -> Model:
    """A copy of a model that `apply` made, in which quantizers of activations have grids of more than 16 bits.

    Args:
        wide: quantized tensor → its grid, with one scale.
    """
    model = io.copy(quantized)
    for tensor, quantize, restore in _pairs(model):
        if tensor in wide:
            q, grid = wide[tensor]
            above = np.asarray(q.zero_point - grid.lo, np.float64)
            steps = _steps(q.scale.astype(np.float64), above, grid.hi - grid.lo)
            like: list[Step] = [("CastLike", np.zeros((), number)) for number in (np.float64, np.float32)]
            _write_out(model.graph, quantize, restore, [like[0], *steps, like[1]])
    return model


def _pairs(model: Model) -> list[tuple[str, Node, Node]]:
    """Quantized tensor, its QuantizeLinear, and a DequantizeLinear that reads it; all of them."""
    tensors = {found.quantizer: tensor for tensor, found in quantizer_pairs(model)}
    restoring = [node for node in model.graph if is_op(node, "DequantizeLinear")]
    sources = [(None if node.inputs[0] is None else node.inputs[0].producer(), node) for node in restoring]
    return [(tensors[source], source, node) for source, node in sources if source is not None and source in tensors]


def _steps(scale: Value | NDArray[Any], above: NDArray[Any], codes: int) -> list[Step]:
    """What a quantizer computes; from its lowest code the zero point is `above` away, the highest code `codes`."""
    number = above.dtype.type
    return [
        ("Div", scale),
        ("Add", np.asarray(above + number(0.5))),
        ("Floor", None),
        ("Max", np.asarray(0, number)),
        ("Min", np.asarray(codes, number)),
        ("Sub", above),
        ("Mul", scale),
    ]


def _write_out(graph: Graph, quantize: Node, restore: Node, steps: Sequence[Step]) -> None:
    value = quantize.inputs[0]
    assert value is not None
    name = value.name or ""
    for i, (op_type, operand) in enumerate(steps):
        other = add_constant(graph, operand, f"{name}_{op_type}_{i}") if isinstance(operand, np.ndarray) else operand
        node = new_node(
            graph, op_type, [value] if other is None else [value, other], f"{name}_{op_type}", f"{name}_{op_type}"
        )
        graph.insert_before(restore, node)
        value = node.outputs[0]
    take_over(restore.outputs[0], value)
    remove(restore)
    if not quantize.outputs[0].uses():
        remove(quantize)
