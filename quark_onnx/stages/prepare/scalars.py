"""Scalar constants of elementwise operators, and chains of multiplications by them."""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_constant, is_float, is_op, rank, sole_reader


class Scaled(NamedTuple):
    """A chain of multiplications by constants, all in one `factor`, from or to `source`; `nodes` in the order found."""

    source: Value
    factor: float
    nodes: tuple[Node, ...]


class Operand(NamedTuple):
    """An elementwise operator with one constant number: its other input, that one's number, and the constant."""

    node: Node
    source: Value
    at: int
    number: float


def operand(node: Node | None, *op_types: str) -> Operand | None:
    """The node as one of these operators with a constant number that changes no shape; None: it is not."""
    if node is None or not is_op(node, *op_types) or len(node.inputs) != 2:
        return None
    at = 0 if is_constant(node.inputs[1]) else 1
    source, other = node.inputs[at], node.inputs[1 - at]
    array = constant(other)
    if source is None or array is None or array.size != 1 or not is_float(other):
        return None
    if array.ndim > _axes(source):
        return None
    return Operand(node, source, at, float(array.item()))


def _axes(value: Value) -> int:
    """How many axes the value has at least: a convolution has those of its weight, known or not to shape inference."""
    node = value.producer()
    weight = input_at(node, 1) if node is not None and is_op(node, "Conv", "ConvTranspose") else None
    return rank(value) or rank(weight) or 0


def multiplied(node: Node | None) -> Operand | None:
    """A node that multiplies, or divides, by a constant, with the factor as its number."""
    found = operand(node, "Mul", "Div")
    if found is None or not is_op(node, "Div"):
        return found
    return None if found.at == 1 or found.number == 0 else found._replace(number=1 / found.number)


def unscaled(value: Value) -> Scaled:
    """The value as a factor of the source in front of it, up to the last node of which something else is read."""
    source, factor, nodes = value, 1.0, []
    while (found := multiplied(node := source.producer())) is not None and node is not None:
        if sole_reader(source) is None:
            break
        source, factor = found.source, factor * found.number
        nodes.append(node)
    return Scaled(source, factor, tuple(nodes))


def scaled_behind(value: Value) -> Scaled:
    """The multiplications by positive constants behind a value that nobody else reads, the first one first."""
    last, factor, nodes = value, 1.0, []
    while (found := multiplied(node := sole_reader(last))) is not None and node is not None and found.number > 0:
        last, factor = node.outputs[0], factor * found.number
        nodes.append(node)
    return Scaled(last, factor, tuple(nodes))
