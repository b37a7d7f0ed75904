"""Why OpenVINO computes a quantized node in float: facts about its integer primitives, found by experiment (2026.4).

a layer        takes inputs of 8 bits, and weights of int8 whose zero point is 0; others it makes floats of
ConvTranspose  takes an input whose zero point is 0 only
MatMul         of two activations takes a left side whose zero point is 0, and a right side that is signed, with
               zero point 0; uint8 around 128 is the same
Conv           of one position has its strides moved in front of it, behind the quantizer, and then computes floats
a subgraph     of several operators in one kernel tells no types of its products: what holds elsewhere holds there,
               as sums that saturate show for weights; for two activations it is not known, but taken from what the
               same model is where processors have no such kernel
quantizers     of 16 bits are dropped while the model is loaded: what is between them stays float
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.operators import CPU, LAYERS
from quark_onnx.engine.executed_work import on_integers
from quark_onnx.engine.runtimes.runtime import Executed
from quark_onnx.engine.saturation_certificate import type_of
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, shape

BETWEEN = "OpenVINO computes it in float, between quantizers that it leaves where they are"
NO_PRIMITIVE = "OpenVINO has no integer primitive for its shapes and attributes"
STRIDES = (
    "OpenVINO moves the strides of a Conv of one position in front of it, behind the quantizer: it computes floats"
)


class Codes(NamedTuple):
    """An input that is dequantized.

    name      of the float tensor, or of the codes where these are stored
    dtype     of the codes
    zero      their zero point, the largest where there are several
    blocks    whether there is a scale per block
    constant  whether the codes are
    """

    name: str
    dtype: str
    zero: int
    blocks: bool
    constant: bool

    @property
    def signed(self) -> bool:
        """Whether it is symmetric around 0, which uint8 around 128 is, too."""
        return (self.dtype, self.zero) in (("int8", 0), ("uint8", 128))


def why_float(node: Node) -> str:
    """The reason for a node of the quantized model that a primitive computes in float."""
    return _why_not(node) or (NO_PRIMITIVE if node.op_type in LAYERS else BETWEEN)


def multiplies_integers(node: Node, one: Executed) -> bool:
    """Whether what does the work of a layer multiplies integers for it."""
    return not _why_not(node) if one.op_type == "Subgraph" else on_integers(one)


def _why_not(node: Node) -> str:
    """What stands against integers, as far as is known."""
    sides = [codes_of(value) for value in node.inputs]
    wide = next((side for side in sides if side is not None and side.dtype in ("int16", "uint16")), None)
    if wide is not None and not wide.constant:
        return f"OpenVINO drops quantizers of 16 bits, so {wide.name!r} stays float"
    return _why_product(node, *(sides[:2])) if node.op_type in LAYERS else ""


def _why_product(node: Node, left: Codes | None, right: Codes | None) -> str:
    """What its integer primitive does not take, of inputs that are quantized in 8 bits or less."""
    if left is None or right is None:
        return "only one side of its product is integer, and OpenVINO multiplies floats by it"
    if left.constant:
        return f"its weight {left.name!r} stands on the left, and OpenVINO takes it on the right"
    if right.constant:
        if right.blocks:
            return f"its weight {right.name!r} has a scale per block, which no integer primitive of OpenVINO takes"
        if right.dtype != "int8" or right.zero:
            return f"its weight {right.name!r} is {_said(right)}, and OpenVINO takes int8 without zero point"
    elif not right.signed:
        return f"its right side {right.name!r} is {_said(right)}, and OpenVINO takes int8 without zero point there"
    if left.zero and (is_op(node, "ConvTranspose") or not right.constant):
        return f"its input {left.name!r} has zero point {left.zero}, and OpenVINO's integer {node.op_type} takes none"
    return STRIDES if _skips(node) else ""


def _skips(node: Node) -> bool:
    """Whether it reads one position of several, and passes over the others."""
    kernel = shape(node.inputs[1]) if is_op(node, "Conv") else None
    return kernel is not None and set(kernel[2:]) == {1} and max(node.attributes.get_ints("strides", [1])) > 1


def _said(codes: Codes) -> str:
    return f"{codes.dtype} with zero point {codes.zero}" if codes.zero else codes.dtype


def codes_of(value: Value | None) -> Codes | None:
    """What is dequantized for an input, and moved, perhaps; None: it is not."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in CPU and CPU[node.op_type].kind == "same":
        first = input_at(node, 0)
        node = None if first is None else first.producer()
    if node is None or not is_op(node, "DequantizeLinear"):
        return None
    codes, zero = input_at(node, 0), input_at(node, 2)
    assert codes is not None
    maker, points = codes.producer(), constant(zero)
    source = input_at(maker, 0) if maker is not None and is_op(maker, "QuantizeLinear") else codes
    dtype = type_of(codes) if zero is None else type_of(zero)
    return Codes(
        "" if source is None else source.name or "",
        "uint8" if dtype is None else dtype.name,
        0 if points is None or not points.size else int(points.max()),
        node.attributes.get_int("block_size", 0) > 0,
        is_constant(codes),
    )
