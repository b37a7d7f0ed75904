"""Which node of the graph that a runtime executes does the work of a node of the model.

    the one that names it: for a layer the last of those that are products, for others the last of all
    else the one that does the work of a node that reads it: what is merged into its reader leaves no name; where there
    are several, one that computes on floats, as there it counts
    else the one that does the work of a node in front of it

What is merged is a layer's only where that one is a product. Nothing is known of bodies of control flow that are
executed as one node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from quark_onnx.core.operators import LAYERS
from quark_onnx.engine.runtimes.runtime import Executed
from quark_onnx.graph import Model, Node

PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "Subgraph")
"""What OpenVINO calls those that add products; a Subgraph is several nodes in one, MatMul among them."""


def on_integers(one: Executed) -> bool:
    """Whether its primitive takes integers; the precision alone may be that of weights that it makes floats of."""
    return one.primitive.lower().endswith("_i8") and one.precision in ("u8", "i8")


def work_by_node(model: Model, executed: Sequence[Executed]) -> dict[str, Executed]:
    """Node of the model, by name → what does its work; those are missing of which nothing is known."""
    named = defaultdict[str, list[Executed]](list)
    for one in executed:
        for name in one.nodes:
            named[name].append(one)
    nodes = [*model.graph]
    own = {node: _own(node, named[node.name or ""]) for node in model.graph.all_nodes() if node.name in named}
    found = {node: one for node, one in own.items() if one is not None}
    for node in reversed(nodes):
        _take(found, node, _readers(node))
    for node in nodes:
        _take(found, node, _givers(node))
    return {node.name or "": one for node, one in found.items()}


def _own(node: Node, those: Sequence[Executed]) -> Executed | None:
    """The last; of a layer what only lays out its weight has its name, too."""
    fitting = [one for one in those if one.op_type in PRODUCTS or node.op_type not in LAYERS]
    return next(reversed(fitting), None)


def _take(found: dict[Node, Executed], node: Node, neighbours: Iterable[Node]) -> None:
    if node in found:
        return
    those = [found[other] for other in neighbours if other in found]
    those = [one for one in those if node.op_type not in LAYERS or one.op_type in PRODUCTS]
    if those:
        found[node] = min(those, key=on_integers)


def _readers(node: Node) -> Iterator[Node]:
    return (use.node for value in node.outputs for use in value.uses() if use.node.graph is node.graph)


def _givers(node: Node) -> Iterator[Node]:
    made = (value.producer() for value in node.inputs if value is not None)
    return (maker for maker in made if maker is not None and maker.graph is node.graph)
