"""Operators without a weight that integers would buy nothing: between float operators they stay float.

Quantizing them would add a rounding and save nothing. Three questions are asked of each, until nothing changes:

    behind    does a reader of its output take integers? A model output does not: what is quantized on its way out of
              the model costs accuracy, and one scale for boxes and scores costs a detector its task. The residual Add
              in front of a LayerNormalization has outliers; rounding it costs a transformer more than all its layers.
    in front  does it get integers? Where all large inputs are computed in float, or where those that are integers are
              read as floats anyway (the x of x · f(x)), an integer kernel would need quantizers of its own, in the
              middle of what the runtime computes as one: Gelu, normalizations, a logarithm's range.

    twice     is its output only read to be scaled or moved by a constant? Two quantizers in a row make twice the noise
              of one; both operators in float cost little more. On PP-OCR's recognizer, whose HardSwish is moved so in
              each of 16 blocks, it is 3 dB and a fifth of the lines, for 3 % of the time.

Operators that only move values hand the questions on. What a layer makes whose kernel returns floats as well counts as
floats; it needs no quantizer behind it where somebody reads these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from quark_onnx.core.operators import SHAPE_ALONE, Op
from quark_onnx.core.plan import TABLE, Plan
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import constant, is_op, shape, sole_reader
from quark_onnx.stages.place.float_readers import behind_layer, with_floats_beside
from quark_onnx.stages.place.handed_codes import with_codes_handed
from quark_onnx.stages.place.never_quantized import data_inputs

BEHIND = "nobody behind it reads integers: quantizing its output would only add rounding"
IN_FRONT = "what it reads comes as floats: it would need quantizers of its own"
CLAMP = "nobody behind it reads integers, and the layer in front of it returns floats"
MOVES = "only moves values, and no neighbour is quantized or all that it moves is read in float as well"
TWICE = "a product or sum that is scaled or moved by a constant: two quantizers in a row would make twice the noise"


def idle(
    graph: Graph, nodes: Mapping[str, Sequence[str]], moving: Collection[str], ops: Mapping[str, Op]
) -> dict[str, str]:
    """Nodes that integers would buy nothing → the reason. What such a node absorbed goes with it.

    Args:
        nodes: quantized node → the tensors that carry a quantizer for it; absorbed ones have those of their owner.
        moving: nodes that only move values, and are quantized where a neighbour is.
        ops: the target's table.
    """
    view = _Quantized(dict(nodes), moving, ops)
    found: dict[str, str] = {}
    while True:
        before = len(found)
        for node in reversed(graph):
            if view.computes(node) and not view.takes_integers(view.last(node).outputs[0]):
                found |= view.drop(node, BEHIND)
        for node in graph:
            if view.computes(node) and not view.gets_integers(node):
                found |= view.drop(node, IN_FRONT)
            elif (first := view.rounded_before(node)) is not None:
                found |= view.drop(first, TWICE) | view.drop(node, TWICE)
        if len(found) == before:
            return found


def without_output(
    graph: Graph, nodes: Mapping[str, Sequence[str]], moving: Collection[str], ops: Mapping[str, Op]
) -> list[Node]:
    """Layers on integers whose kernel returns floats as well, which somebody behind them reads, or nobody as integers.

    Arguments as of `idle`.
    """
    view = _Quantized(dict(nodes), moving, ops)
    layers = [node for node in graph if is_op(node, *ops) and ops[node.op_type].float_output and view.reads(node)]
    ends = [(node, view.last(node).outputs[0]) for node in layers]
    return [node for node, end in ends if view.read_as_floats(end) or not view.takes_integers(end)]


def floating(
    graph: Graph, nodes: Mapping[str, Sequence[str]], moving: Collection[str], ops: Mapping[str, Op]
) -> list[str]:
    """Nodes in `moving` that move floats, which somebody behind them reads as such. Arguments as of `idle`."""
    view = _Quantized(dict(nodes), moving, ops)
    moves = [node for node in graph if node.name in moving and not view.made(node.outputs[0])]
    return [node.name or "" for node in moves if any(view.read_as_floats(value) for value in node.outputs)]


def connected(wanted: Mapping[str, Sequence[str]], tensors: Collection[str]) -> list[str]:
    """Nodes that only move values and have a neighbour that is quantized, forward and backward through chains.

    Args:
        wanted: such a node → the tensors that would carry a quantizer.
        tensors: those that carry one anyway.
    """
    present, waiting, found = set(tensors), dict(wanted), []
    while joined := [name for name, ends in waiting.items() if not present.isdisjoint(ends)]:
        for name in joined:
            present.update(waiting.pop(name))
        found += joined
    return found


def tidied(graph: Graph, plan: Plan, target: Target) -> Plan:
    """The plan without what integers buy nothing any more, after nodes have been taken out of it."""
    ops = target.ops
    lookups = {node for node, ends in plan.nodes.items() if any(plan.sites[tensor].rule == TABLE for tensor in ends)}
    reasons, nodes = {}, {name: ends for name, ends in plan.nodes.items() if name not in lookups}
    if target.spares_idle:
        reasons = idle(graph, nodes, (), ops)
        nodes = {name: tensors for name, tensors in nodes.items() if name not in reasons}
        reasons |= _let_go(graph, nodes, ops)
    moves = [n.name or "" for n in graph if n.name in nodes and is_op(n, *ops) and ops[n.op_type].kind == "same"]
    moving = {name: nodes[name] for name in moves}
    tensors = {tensor for name, ends in nodes.items() if name not in moving for tensor in ends}
    joined = set(connected(moving, tensors))
    reasons |= {name: MOVES for name in moving if name not in joined}
    left = {name: nodes.get(name, ends) for name, ends in plan.nodes.items() if name in nodes or name in lookups}
    tidy = plan.keeping({name: ends for name, ends in left.items() if name not in reasons}, reasons)
    sites = tidy.sites
    if target.spares_idle:
        sites = with_floats_beside(graph, sites, tidy.nodes, ops)
    return replace(tidy, sites=with_codes_handed(graph, sites, tidy.nodes, ops) if target.hands_on else sites)


def _let_go(graph: Graph, nodes: dict[str, tuple[str, ...]], ops: Mapping[str, Op]) -> dict[str, str]:
    """Take the quantizers behind layers that may return floats out of `nodes`, and the clamps that they took in."""
    found, view = {}, _Quantized(dict(nodes), (), ops)
    for layer in without_output(graph, nodes, (), ops):
        chain = view.chain(layer)
        behind = {value.name for node in chain for value in node.outputs}
        left = tuple(tensor for tensor in nodes[layer.name or ""] if tensor not in behind)
        for node in chain:
            name = node.name or ""
            if node is layer or is_op(node, "Add"):
                nodes[name] = left
            else:
                del nodes[name]
                found[name] = CLAMP
    return found


@dataclass
class _Quantized:
    """The quantized nodes of a graph, and what their neighbours are."""

    nodes: dict[str, Sequence[str]]
    moving: Collection[str]
    ops: Mapping[str, Op]

    def computes(self, node: Node) -> bool:
        """Whether it is quantized for itself, and has no weight."""
        quantized = (node.name or "") in self.nodes and self._owner(node) is node
        return quantized and self._kind(node) in ("act", "fixed")

    def reads(self, node: Node) -> bool:
        """Whether it reads integers, a weight apart."""
        mine, varying = self.nodes.get(node.name or "", ()), (v for v in node.inputs if v is not None)
        return any(value.name in mine and constant(value) is None for value in varying)

    def last(self, node: Node) -> Node:
        """The last of the nodes that this one has absorbed; itself where there is none."""
        return self.chain(node)[-1]

    def chain(self, node: Node) -> list[Node]:
        """The node and what it absorbed, which carries the same quantizers."""
        chain, mine = [node], self.nodes.get(node.name or "")
        follower = sole_reader(node.outputs[0])
        while follower is not None and self.nodes.get(follower.name or "") == mine:
            chain.append(follower)
            follower = sole_reader(follower.outputs[0])
        return chain

    def _owner(self, node: Node) -> Node:
        """The node in front that has absorbed it, with which it goes or stays: of a bias, the product; else itself."""
        mine, producers = self.nodes[node.name or ""], (value.producer() for value in node.inputs if value is not None)
        owners = [one for one in producers if one is not None and self.nodes.get(one.name or "") == mine]
        return self._owner(owners[0]) if owners else node

    def drop(self, node: Node, reason: str) -> dict[str, str]:
        """Take a node, and what it absorbed, out."""
        names = [one.name or "" for one in self.chain(node)]
        for name in names:
            del self.nodes[name]
        return dict.fromkeys(names, reason)

    def takes_integers(self, value: Value) -> bool:
        """Whether a node reads the value as integers, moved or not."""
        for node in value.consumers():
            if self._moves(node):
                if any(self.takes_integers(output) for output in node.outputs):
                    return True
            elif value.name in self.nodes.get(node.name or "", ()):
                return True
        return False

    def gets_integers(self, node: Node) -> bool:
        """Whether an integer kernel has its inputs, or most of their work, for nothing."""
        row = self._row(node)
        if is_op(node, "Identity") or row.joins:  # between two types that the user asks for; in place of one behind it
            return True
        varying = [value for value in data_inputs(node, row) if constant(value) is None]
        large = [value for value in varying if not _smaller(value, node.outputs[0])] or varying
        integers = [value for value in large if self._are_integers(value)]
        if len(integers) == len(large) or (integers and is_op(node, "Concat")):
            return True
        return any(self.made(value) and not self.read_as_floats(value) for value in integers)

    def rounded_before(self, node: Node) -> Node | None:
        """The product or sum that `node`, which is nothing but scaling or moving it by a constant, is alone to read."""
        if not self._is_plain(node):
            return None
        varying = [value for value in node.inputs if value is not None and constant(value) is None]
        first = varying[0].producer() if len(varying) == 1 else None
        alone = first is not None and sole_reader(first.outputs[0]) is node
        return first if first is not None and alone and self._is_plain(first) else None

    def _is_plain(self, node: Node) -> bool:
        """A quantized product or sum, with nothing behind it that its quantizer takes in."""
        return self.computes(node) and is_op(node, "Add", "Mul") and len(self.chain(node)) == 1

    def _are_integers(self, value: Value) -> bool:
        """Whether an integer kernel makes the value, or a layer needs it quantized anyway."""
        producer = value.producer()
        if producer is not None and self._moves(producer):
            source = producer.inputs[0]
            return (source is not None and self._are_integers(source)) or self._needed(value)
        return self.made(value) or self._needed(value)

    def made(self, value: Value) -> bool:
        """Whether a kernel makes integers that returns nothing else, moved or not."""
        producer = value.producer()
        if producer is not None and self._moves(producer):
            return producer.inputs[0] is not None and self.made(producer.inputs[0])
        if producer is None or value.name not in self.nodes.get(producer.name or "", ()):
            return behind_layer(value, self.nodes, self.ops)
        return not self._row(self._owner(producer)).float_output

    def _needed(self, value: Value) -> bool:
        for node in value.consumers():
            if self._moves(node):
                if any(self._needed(output) for output in node.outputs):
                    return True
            elif self._kind(node) in ("layer", "matmul", "norm") and value.name in self.nodes.get(node.name or "", ()):
                return True
        return False

    def read_as_floats(self, value: Value) -> bool:
        """Whether a node, or the user, reads the value as floats, moved or not; a shape is none of them."""
        if value.is_graph_output():
            return True
        for node in value.consumers():
            if self._moves(node):
                if any(self.read_as_floats(output) for output in node.outputs):
                    return True
            elif value.name not in self.nodes.get(node.name or "", ()) and not is_op(node, *SHAPE_ALONE):
                return True
        return False

    def _moves(self, node: Node) -> bool:
        return self._kind(node) == "same" and ((node.name or "") in self.moving or (node.name or "") in self.nodes)

    def _row(self, node: Node) -> Op:
        return self.ops[node.op_type]

    def _kind(self, node: Node) -> str:
        return self.ops[node.op_type].kind if is_op(node, *self.ops) else ""


def _smaller(value: Value, output: Value) -> bool:
    """Whether the value is known to be spread over an axis of the output, or to have fewer axes."""
    mine, whole = shape(value), shape(output)
    if mine is None or whole is None:
        return False
    if len(mine) < len(whole):
        return True
    return any(a == 1 and b != 1 for a, b in zip(mine, whole, strict=False))
