"""Bodies of control flow, each as a model of its own, and a model of its own put back as a body.

    body(formal inputs; what it reads of the graph around it)  =  model(formal inputs, tensors around it; constants)

The model computes what the body does, so all that can be learned of a model can be learned of a body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.edit import claim, claim_name, forget_names
from quark_onnx.graph.inline_branch import release
from quark_onnx.graph.view import is_constant, is_op, numpy_dtype

_TITLES = {"then_branch": "then branch", "else_branch": "else branch", "body": "body"}


@dataclass(frozen=True, eq=False)
class Body:
    """One graph inside a node of another one."""

    node: ir.Node
    attribute: str

    @property
    def graph(self) -> ir.Graph:
        """The body itself."""
        return self.node.attributes[self.attribute].as_graph()

    @property
    def key(self) -> str:
        """What names it in the graph around it: that has no two nodes of one name."""
        return f"{self.node.name}/{self.attribute}"

    @property
    def title(self) -> str:
        """`the else branch of If 'x'`."""
        return f"the {_TITLES.get(self.attribute, self.attribute)} of {self.node.op_type} {self.node.name!r}"


def bodies(graph: ir.Graph) -> Iterator[Body]:
    """The bodies of the nodes of this graph, in order; those inside of them are not among them."""
    for node in graph:
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                yield Body(node, name)


def holds(body: Body, op_types: Collection[str]) -> bool:
    """Whether one of these operators is in the body, or in one inside of it."""
    return any(is_op(node, *op_types) for node in body.graph.all_nodes())


def read_around(body: Body) -> list[ir.Value]:
    """Values of the graph around it that the body reads; each once, in order."""
    read = (value for node in body.graph.all_nodes() for value in node.inputs if value is not None)
    return list(dict.fromkeys(value for value in read if value.graph is body.node.graph))


def shares_constants(body: Body) -> bool:
    """Whether the body reads constants around it that somebody else reads, too."""
    inside = set(body.graph.all_nodes())
    return any(is_constant(value) and not inside.issuperset(value.consumers()) for value in read_around(body))


def as_model(body: Body, model: ir.Model) -> ir.Model | Skip:
    """The body as a model: its inputs are those of the body, and behind them what it reads around it.

    Constants stay constants, and share their numbers with those of `model`, which holds the body.
    """
    graph, around = body.graph, read_around(body)
    inputs = [*graph.inputs, *(value for value in around if not is_constant(value))]
    for value in inputs:
        if not isinstance(value.type, ir.TensorType) or numpy_dtype(value) is None:
            return Skip(f"{value.name!r}, which it reads, is not known to be a tensor")
    names = [value.name for value in graph.outputs]
    if len(set(names)) < len(names):
        return Skip("it returns the same tensor twice")
    view = ir.GraphView(
        inputs,
        list(graph.outputs),
        nodes=list(graph),
        initializers=[*graph.initializers.values(), *(value for value in around if is_constant(value))],
        opset_imports=model.graph.opset_imports,
        name=graph.name or "body",
    )
    return ir.Model(view.clone(), ir_version=model.ir_version)


def put_back(model: ir.Model, replacements: Mapping[str, ir.Model]) -> None:
    """Models that were made of bodies (`as_model`) take their places, by key. They are used up.

    Raises:
        KeyError: there is no such body.
    """
    found = {body.key: body for body in bodies(model.graph)}
    values = {value.name: value for value in (*model.graph.inputs, *model.graph.initializers.values())}
    values |= {value.name: value for node in model.graph for value in node.outputs}
    for key, replacement in replacements.items():
        body, graph = found[key], replacement.graph
        formal = len(body.graph.inputs)
        release(body.node.attributes.pop(body.attribute).as_graph())
        for value in graph.inputs[formal:]:
            value.replace_all_uses_with(values[value.name])
        del graph.inputs[formal:]
        forget_names(model.graph)
        _rename(graph, model.graph)
        body.node.attributes[body.attribute] = ir.AttrGraph(body.attribute, graph)


def _rename(graph: ir.Graph, around: ir.Graph) -> None:
    """No name in the body is one of the graph around it, or of another body there."""
    for inner in (graph, *graph.subgraphs()):
        constants = list(inner.initializers.values())
        inner.initializers.clear()
        for value in (*inner.inputs, *constants):
            claim(around, value)
        for constant in constants:
            inner.register_initializer(constant)
        for node in inner:
            node.name = claim_name(around, node.name or node.op_type)
            for value in node.outputs:
                claim(around, value)
