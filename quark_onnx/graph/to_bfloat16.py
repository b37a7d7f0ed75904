"""A float32 model that computes with bfloat16 numbers, in standard operators that every runtime has.

    weight     bfloat16 initializer → Cast(float32)
    activation y → Cast(bfloat16) → Cast(float32)

Products and sums are float32, as in the matrix units of hardware; what is stored between operators is bfloat16, rounded
half to even. onnxruntime keeps such pairs of Casts: it drops only those that lose nothing.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from quark_onnx.core.operators import CPU
from quark_onnx.core.plan import Skip
from quark_onnx.graph.edit import add_constant, forget_types, fresh_name, new_node, read_instead
from quark_onnx.graph.element_types import infer_types, rounded
from quark_onnx.graph.float16_ports import ports
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import constant, is_op

BFLOAT, FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT

SELECTS = ("Relu", "Clip", "Identity", "ReduceMax", "ReduceMin", "Max", "Min", "Where", "Concat", "Abs", "Neg")
"""Operators whose results are among their inputs, or have a sign changed, beyond those that move values: numbers of
bfloat16 stay such."""


def to_bfloat16(model: ir.Model, *, keep: Collection[str] = ()) -> ir.Model:
    """A copy that rounds weights and activations to bfloat16; inputs and outputs stay float32 tensors.

    Which inputs and outputs hold data is what `ports` says: scales of a Resize are not rounded, for example. Bodies of
    control flow stay float32.

    Args:
        keep: names of nodes whose weights and results are not rounded.
    """
    twin = copy(model)
    infer_types(twin)
    rounder = _Rounder(twin, frozenset(keep))
    for node in tuple(twin.graph):
        rounder.node(node)
    remove_unused(twin)
    forget_types(twin.graph)
    return twin


class _Rounder:
    """One pass over the nodes, in order."""

    def __init__(self, model: ir.Model, keep: frozenset[str]) -> None:
        self.main = model.graph
        self.first = self.main[0] if len(self.main) else None
        self.opsets = model.opset_imports
        self.keep = keep
        self.exact: set[ir.Value] = set()  # activations that are not rounded
        self.other: dict[ir.Value, ir.Value] = {}  # input or weight → rounded

    def node(self, node: ir.Node) -> None:
        """Round what the node reads of inputs and weights, and what it computes."""
        found = ports(node, self.opsets)
        if node.name in self.keep or isinstance(found, Skip):
            self.exact.update(node.outputs)
            return
        for i, value in enumerate(node.inputs):
            if value is not None and found.inputs[i] and self._is_exact(value):
                node.replace_input_with(i, self._rounded(value))
        if _selects(node):
            return
        for value, rounds in zip(tuple(node.outputs), found.outputs, strict=True):
            if rounds:
                self._round_result(node, value)

    def _is_exact(self, value: ir.Value) -> bool:
        """Whether the value is an input, a weight, or what a kept node computes."""
        return value.producer() is None or value in self.exact

    def _rounded(self, value: ir.Value) -> ir.Value:
        if value not in self.other:
            array = constant(value)
            name = value.name or ""
            if array is None:
                self.other[value] = self._pair(value)
            elif (rounded(array, BFLOAT).astype(array.dtype) == array).all() and array.ndim == 0:
                return value
            else:
                stored = add_constant(self.main, rounded(array, BFLOAT), f"{name}_bfloat16", "bfloat16")
                self.other[value] = self._cast(stored, FLOAT, f"{name}_rounded", None)
        return self.other[value]

    def _pair(self, value: ir.Value) -> ir.Value:
        """value → Cast(bfloat16) → Cast(float32), behind its producer."""
        narrow = self._cast(value, BFLOAT, f"{value.name}_bfloat16", value.producer())
        return self._cast(narrow, FLOAT, f"{value.name}_rounded", narrow.producer())

    def _cast(self, value: ir.Value, kind: ir.DataType, name: str, behind: ir.Node | None) -> ir.Value:
        cast = new_node(self.main, "Cast", [value], f"{name}_Cast", name, {"to": kind.value})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(kind), value.shape
        if behind is not None:
            self.main.insert_after(behind, cast)
        elif self.first is not None:
            self.main.insert_before(self.first, cast)
        return cast.outputs[0]

    def _round_result(self, node: ir.Node, value: ir.Value) -> None:
        """All readers of what a node computes read it rounded, model outputs included."""
        result = self._pair(value)
        read_instead(value, result, keep=[use.node for use in value.uses() if _narrows(use.node)])
        if value.is_graph_output():
            name = value.name or ""
            for i, output in enumerate(self.main.outputs):
                if output is value:
                    self.main.outputs[i] = result
            value.name = fresh_name(self.main, f"{name}_exact")
            result.name, result.shape = name, value.shape


def _narrows(node: ir.Node) -> bool:
    return is_op(node, "Cast") and node.attributes.get_int("to") == BFLOAT.value


def _selects(node: ir.Node) -> bool:
    """Whether the results are numbers that the node reads."""
    moves = is_op(node, *CPU) and CPU[node.op_type].kind == "same" and node.op_type != "Resize"
    return moves or is_op(node, *SELECTS)
