"""Gelu as exporters write it, as the one operator that operator set 20 has for it.

    ½ x (1 + erf(x / √2))                               Gelu(x)
    ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))            Gelu(x), approximate: tanh

onnxruntime makes one kernel of the first by itself, but not where x comes from a quantizer: it gives each reader of x a
DequantizeLinear of its own, and no longer sees that they read the same. Of the second it makes one nowhere on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.edit import become, remove_unread, set_text
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_op, sole_reader
from quark_onnx.stages.prepare.scalars import multiplied, operand

OPSET = 20
"""The operator set that brought Gelu."""

CUBIC = 0.044715

TOLERANCE = 1e-5
"""Relative: constants are written with five digits and more."""


class Found(NamedTuple):
    """`nodes` compute Gelu of `x`, the last one, which becomes the operator, first."""

    x: Value
    tanh: bool
    nodes: tuple[Node, ...]


@dataclass
class _Product:
    """A value as a constant and the factors that are no products themselves; `nodes` multiply, the last one first."""

    number: float = 1.0
    factors: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def match(root: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    whole = _product(root.outputs[0], root)
    if len(whole.factors) != 2 or not _is(whole.number, 0.5):
        return Skip("it is not half of a product of two")
    for x, other in (whole.factors, whole.factors[::-1]):
        add = _one_more(other)
        function = None if add is None else add[1].producer()
        inner = None if function is None or sole_reader(function.outputs[0]) is None else function.inputs[0]
        if add is None or function is None or inner is None:
            continue
        part = _of(x, inner, function)
        if part is not None:
            return Found(x, is_op(function, "Tanh"), (*whole.nodes, add[0], function, *part))
    return Skip("the other factor is not 1 + erf or 1 + tanh of the first")


def _is(number: float, wanted: float) -> bool:
    return math.isclose(number, wanted, rel_tol=TOLERANCE)


def _product(value: Value, root: Node | None = None) -> _Product:
    """Follow products of which nothing else is read; `root` is the node to begin with, whoever reads it."""
    product, waiting = _Product(), [value]
    while waiting:
        current = waiting.pop()
        node = current.producer()
        scaled = multiplied(node)
        if node is None or (node is not root and sole_reader(current) is None):
            product.factors.append(current)
        elif scaled is not None:
            product.number *= scaled.number
            product.nodes.append(node)
            waiting.append(scaled.source)
        elif is_op(node, "Mul"):
            product.nodes.append(node)
            waiting += [one for one in node.inputs if one is not None]
        elif is_op(node, "Pow") and (power := _power(node)) is not None and node.inputs[0] is not None:
            product.nodes.append(node)
            product.factors += [node.inputs[0]] * power
        else:
            product.factors.append(current)
    return product


def _power(node: Node) -> int | None:
    exponent = constant(input_at(node, 1))
    return int(exponent.item()) if exponent is not None and exponent.size == 1 and exponent.item() in (2, 3) else None


def _one_more(value: Value) -> tuple[Node, Value] | None:
    """The node that adds 1, and what it adds it to."""
    node = value.producer()
    found = operand(node, "Add")
    if node is None or found is None or found.number != 1 or sole_reader(value) is None:
        return None
    return node, found.source


def _of(x: Value, inner: Value, function: Node) -> list[Node] | None:
    """The nodes that compute the argument of the function from x, if it is that of Gelu."""
    product = _product(inner)
    if is_op(function, "Erf"):
        return product.nodes if product.factors == [x] and _is(product.number, math.sqrt(0.5)) else None
    if not is_op(function, "Tanh") or not _is(product.number, math.sqrt(2 / math.pi)):
        return None
    others = [factor for factor in product.factors if factor is not x]
    if len(others) != 1 or len(product.factors) > 2:
        return None
    rest = _cubic(x, others[0], 3) if len(product.factors) == 1 else _cubic(x, others[0], 2)
    return None if rest is None else [*product.nodes, *rest]


def _cubic(x: Value, value: Value, power: int) -> list[Node] | None:
    """The nodes of x + 0.044715 x³, or of 1 + 0.044715 x²."""
    node = value.producer()
    if node is None or not is_op(node, "Add") or sole_reader(value) is None:
        return None
    one = operand(node, "Add")
    if power == 2:
        terms = [one.source] if one is not None and one.number == 1 else []
    else:
        terms = [term for term in node.inputs if term is not None and term is not x] if x in node.inputs else []
    if len(terms) != 1:
        return None
    product = _product(terms[0])
    fits = product.factors == [x] * power and _is(product.number, CUBIC)
    return [node, *product.nodes] if fits else None


def apply(found: Found) -> None:
    """Edit only."""
    become(found.nodes[0], "Gelu", [found.x])
    if found.tanh:
        set_text(found.nodes[0], "approximate", "tanh")
    remove_unread(found.nodes[1:])


def pays(graph: Graph) -> bool:
    """Whether a Gelu is written in a way that onnxruntime makes no single kernel of behind an integer convolution."""
    for node in graph:
        found = match(node) if is_op(node, *RULE.roots) else None
        if isinstance(found, Found) and (found.tanh or is_op(found.x.producer(), "Conv", "ConvTranspose")):
            return True
    return False


RULE = Rule("gelu", ("Mul", "Div"), match, apply)
