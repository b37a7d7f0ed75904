"""HardSwish, in one of the ways exporters write it, as an Add, a Clip and a Mul of values scaled by k.

    c · x · clip(x + s, 0, m)  =  (k x) · clip(k x + k s, 0, k m),      k = √c

HardSwish is c = 1/6, s = 3, m = 6. As HardSwish(x); x · HardSigmoid(x), whose slope α and offset β are c = α, s = β / α
and m = 1 / α; or an Add, a Clip, a Mul and constants, in any order. Positive factors behind it go into c, too.

A layer that nothing else reads takes k in. What remains are two integer kernels: the range of an Add that is quantized
ends where the Clip does, so that its quantizer clips. Where no layer can take k in, a Mul by c stays behind.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, become, bypass, graph_of, new_node, remove
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, numpy_dtype, sole_reader
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.prepare.scalars import Scaled, operand, scaled_behind, unscaled
from quark_onnx.stages.prepare.scaled_constants import Folded, after, store


class Gate(NamedTuple):
    """c · clip(x + s, 0, m). `nodes` compute it, the last one first; `add` and `clip` are those of them to keep."""

    x: Value
    c: float
    s: float
    m: float
    nodes: tuple[Node, ...]
    add: Node | None = None
    clip: Node | None = None


class Found(NamedTuple):
    """`root` multiplies x and the gate; `behind` are the factors that follow it; `layer` has k in its constants."""

    root: Node
    gate: Gate
    behind: Scaled
    layer: Folded | None


def match(root: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    gate = _hard_swish(root) if is_op(root, "HardSwish") else _gated(root)
    if gate is None:
        return Skip("it is not x · clip(x + s, 0, m)")
    behind = scaled_behind(root.outputs[0])
    gate = gate._replace(c=gate.c * behind.factor)
    if not (gate.c > 0 and math.isfinite(gate.c)) or numpy_dtype(gate.x) is None:
        return Skip("its factor is not positive, or its type unknown")
    plain = gate.add is not None and len(gate.nodes) == 2
    if plain and not behind.nodes:
        return Skip("it is an Add, a Clip and a Mul already")
    layer = _scaled_layer(gate, root)
    if isinstance(layer, Skip) and plain and [node.op_type for node in behind.nodes] == ["Mul"]:
        return layer
    return Found(root, gate, behind, None if isinstance(layer, Skip) else layer)


def _hard_swish(root: Node) -> Gate | None:
    x = root.inputs[0]
    return None if x is None else Gate(x, 1 / 6, 3.0, 6.0, ())


def _gated(root: Node) -> Gate | None:
    """The product as a gate of its other side."""
    for at in (0, 1):
        value, other = root.inputs[1 - at], root.inputs[at]
        if value is None or other is None:
            continue
        gate, plain = _gate(value), unscaled(other)
        if gate is not None and other is gate.x:
            return gate
        if gate is not None and plain.source is gate.x:
            return gate._replace(c=gate.c * plain.factor, nodes=(*gate.nodes, *plain.nodes))
    return None


def _gate(value: Value) -> Gate | None:
    scaled = unscaled(value)
    node = scaled.source.producer()
    if node is None or sole_reader(scaled.source) is None:
        return None
    if is_op(node, "HardSigmoid"):
        alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        if alpha <= 0 or node.inputs[0] is None:
            return None
        c = alpha * scaled.factor
        return Gate(node.inputs[0], c, beta / alpha, 1 / alpha, (*scaled.nodes, node), clip=node)
    low, high = (constant(input_at(node, i)) for i in (1, 2)) if is_op(node, "Clip") else (None, None)
    shifted = node.inputs[0]
    if low is None or high is None or shifted is None or low.item() != 0 or not 0 < high.item() < math.inf:
        return None
    add = shifted.producer()
    found = operand(add, "Add")
    if found is None or add is None or sole_reader(shifted) is None:
        return None
    nodes = (*scaled.nodes, node, add)
    return Gate(found.source, scaled.factor, found.number, float(high.item()), nodes, add, node)


def _scaled_layer(gate: Gate, root: Node) -> Folded | Skip:
    """The layer that computes x, with k in its constants."""
    node = gate.x.producer()
    if node is None or not is_op(node, *LAYERS):
        return Skip("no layer computes its input")
    if gate.x.is_graph_output() or {use.node for use in gate.x.uses()} - {root, *gate.nodes}:
        return Skip("the output of the layer is read elsewhere")
    layer = read(node)
    if isinstance(layer, Skip):
        return layer
    return after(layer, np.full(layer.channels, math.sqrt(gate.c)), np.zeros(layer.channels))


def apply(found: Found) -> None:
    """Edit only."""
    root, gate = found.root, found.gate
    k = 1.0 if found.layer is None else math.sqrt(gate.c)
    if found.layer is not None:
        store(found.layer)
    clip = _clip(root, gate, k)
    if found.layer is None and gate.c != 1:
        product = new_node(graph_of(root), "Mul", [gate.x, clip], f"{root.name}_product", f"{root.name}_product")
        product.outputs[0].type, product.outputs[0].shape = gate.x.type, gate.x.shape
        graph_of(root).insert_before(root, product)
        become(root, "Mul", [product.outputs[0], _number(root, gate, gate.c, "factor")])
    else:
        become(root, "Mul", [gate.x, clip])
    for node in gate.nodes:
        if node not in (gate.add, gate.clip):
            remove(node)
    for node in found.behind.nodes:
        bypass(node, 1 if is_constant(node.inputs[0]) else 0)


def _clip(root: Node, gate: Gate, k: float) -> Value:
    """clip(k x + k s, 0, k m), where k x is what the layer computes now."""
    graph = graph_of(root)
    add = gate.add or new_node(graph, "Add", [gate.x], f"{root.name}_shift", f"{root.name}_shifted")
    if gate.add is None:
        graph.insert_before(gate.clip or root, add)
    clip = gate.clip or new_node(graph, "Clip", [add.outputs[0]], f"{root.name}_clip", f"{root.name}_gate")
    if gate.clip is None:
        graph.insert_before(root, clip)
    become(add, "Add", [gate.x, _number(root, gate, k * gate.s, "s")])
    bounds = [_number(root, gate, 0.0, "low"), _number(root, gate, k * gate.m, "high")]
    become(clip, "Clip", [add.outputs[0], *bounds])
    for output in (add.outputs[0], clip.outputs[0]):
        output.type, output.shape = gate.x.type, gate.x.shape
    return clip.outputs[0]


def _number(root: Node, gate: Gate, number: float, what: str) -> Value:
    return add_constant(graph_of(root), np.asarray(number, numpy_dtype(gate.x)), f"{root.name}_{what}")


RULE = Rule("hard-swish", ("Mul", "HardSwish"), match, apply)
