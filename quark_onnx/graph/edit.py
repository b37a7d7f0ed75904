"""Editing a graph: the few operations that rules and export are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.node_parts import note_type

_NAMES = "quark_onnx.names"  # graph.meta: every name in use → the next number to try behind it, kept by this module

SPLIT_COUNTS = 18
"""The operator set from which a Split says how many parts it makes."""

LONGEST = 40
"""Characters of a name made here, its number apart: each is written as often as the tensor is read."""

_ENDING = 30  # of these: room for what it is (`_DequantizeLinear`) and for what a tensor's name ends with


def forget_names(graph: ir.Graph) -> None:
    """Call after a foreign pass has edited the graph: names are collected anew at the next use."""
    graph.meta.pop(_NAMES, None)


def fresh_name(graph: ir.Graph, hint: str) -> str:
    """`hint`, or `hint_1`, `hint_2`, …: the first that neither a value nor a node has; a long hint loses its middle."""
    taken = _names(graph)
    hint = shortened(hint)
    name = hint
    while name in taken:
        name = f"{hint}_{taken[hint]}"
        taken[hint] += 1
    taken[name] = 1
    return name


def claim_name(graph: ir.Graph, name: str) -> str:
    """The name as it is, if neither a value nor a node of the graph or its bodies has it; else a fresh one."""
    taken = _names(graph)
    if name in taken:
        return fresh_name(graph, name)
    taken[name] = 1
    return name


def claim(graph: ir.Graph, value: ir.Value) -> None:
    """The value, of another graph, gets a name that is free in this one. A tensor that others share keeps its own."""
    if not value.name or (name := claim_name(graph, value.name)) == value.name:
        return
    if value.const_value is not None:
        value.const_value = own_tensor(value.const_value)
    value.name = name


def own_tensor(tensor: Any) -> Any:
    """A tensor with a name of its own over the same data."""
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.string_data(), shape=tensor.shape, name=tensor.name)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _names(graph: ir.Graph) -> dict[str | None, int]:
    taken: dict[str | None, int] | None = graph.meta.get(_NAMES)
    if taken is None:
        taken = dict.fromkeys((*graph.initializers, *(value.name for value in graph.inputs)), 1)
        for node in graph.all_nodes():
            taken[node.name] = 1
            taken.update((value.name, 1) for value in (*node.inputs, *node.outputs) if value is not None)
        graph.meta[_NAMES] = taken
    return taken


def shortened(name: str) -> str:
    """The name, without its middle where it is long: what begins it and what it ends with tell most."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - _ENDING - 2]}..{name[-_ENDING:]}"


def add_constant(graph: ir.Graph, array: Any, hint: str, dtype: str | None = None) -> ir.Value:
    """A new initializer with a fresh name. `dtype` is an ONNX type name such as `int4`, default: the array's."""
    name = fresh_name(graph, hint)
    kind = None if dtype is None else ir.DataType[dtype.upper()]
    tensor = ir.tensor(np.asarray(array), dtype=kind, name=name)
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def add_input(graph: ir.Graph, dtype: str, dims: Sequence[int | str | None], hint: str) -> ir.Value:
    """A new graph input of a numpy type such as `float32`, with a fresh name."""
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    value = ir.Value(name=fresh_name(graph, hint), type=kind, shape=ir.Shape(dims))
    graph.inputs.append(value)
    return value


def new_node(
    graph: ir.Graph,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    output: str,
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
) -> ir.Node:
    """A node with one output, both named freshly after these hints; not yet part of the graph."""
    node = ir.node(op_type, inputs, attributes or {}, domain=domain, name=fresh_name(graph, name))
    node.outputs[0].name = fresh_name(graph, output)
    return node


def set_constant(node: ir.Node, index: int, array: Any, hint: str) -> None:
    """Input number `index` becomes a new initializer, under the old one's name if nobody else needs that one."""
    graph = graph_of(node)
    node.resize_inputs(max(len(node.inputs), index + 1))
    old = node.inputs[index]
    name = hint if old is None or old.name is None else old.name
    new = add_constant(graph, array, name)
    node.replace_input_with(index, new)
    if old is not None and old.is_initializer() and not old.uses() and not old.is_graph_output():
        graph.initializers.pop(name)
        new.name = name


def set_arrays(graph: ir.Graph, arrays: Mapping[str, Any]) -> None:
    """Other numbers, of the same type, for initializers by name: all their readers see them."""
    for name, array in arrays.items():
        value = graph.initializers[name]
        value.const_value = ir.tensor(np.asarray(array), name=name)


def set_integer(node: ir.Node, name: str, number: int) -> None:
    """Another value for an attribute that is an integer."""
    node.attributes.add(ir.AttrInt64(name, number))


def set_float(node: ir.Node, name: str, number: float) -> None:
    """Another value for an attribute that is a floating-point number."""
    node.attributes.add(ir.AttrFloat32(name, number))


def set_text(node: ir.Node, name: str, text: str) -> None:
    """Another value for an attribute that is a text."""
    node.attributes.add(ir.AttrString(name, text))


def remove_unread(nodes: Sequence[ir.Node]) -> None:
    """Take those nodes out of the graph that nobody reads any more, the last ones first."""
    for node in nodes:
        if node.graph is not None and not any(value.uses() or value.is_graph_output() for value in node.outputs):
            remove(node)


def become(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    domain: str = "",
    keep: Sequence[str] = (),
) -> None:
    """The node keeps its name, its place, its first output and the attributes to `keep`; all else is that of a plain
    `op_type`."""
    kept = [node.attributes[name] for name in keep if name in node.attributes]
    note_type(node)
    node.op_type, node.domain = op_type, domain
    node.attributes.clear()
    for attribute in kept:
        node.attributes.add(attribute)
    node.resize_outputs(1)
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def add_outputs(node: ir.Node, hints: Sequence[str]) -> list[ir.Value]:
    """More outputs of a node, named freshly after these hints."""
    before = len(node.outputs)
    node.resize_outputs(before + len(hints))
    for value, hint in zip(node.outputs[before:], hints, strict=True):
        value.name = fresh_name(graph_of(node), hint)
    return list(node.outputs[before:])


def become_constants(node: ir.Node, arrays: Sequence[Any]) -> list[ir.Value]:
    """The node goes; what it computed is in constants under the names of its outputs, which are returned."""
    graph, outputs = graph_of(node), list(node.outputs)
    names = [output.name for output in outputs]
    values = [add_constant(graph, array, f"{node.name}_value") for array in arrays]
    for output, value in zip(outputs, values, strict=True):
        take_over(output, value)
    remove(node)
    for name, value in zip(names, values, strict=True):
        value.name = name
    return values


def bypass(node: ir.Node, index: int = 0) -> None:
    """Readers of output 0 read input `index` instead, and the node goes. See `view.can_bypass`."""
    value = node.inputs[index]
    assert value is not None
    take_over(node.outputs[0], value)
    remove(node)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds the node."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Readers, name, graph output, type and shape of `old` go to `new`; `old` is left nameless and unread."""
    graph = _graph_of(old)
    new.type = new.type or old.type
    new.shape = new.shape or old.shape
    name, was_output = old.name, old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if was_output:  # a graph output keeps its public name
        old.name = fresh_name(graph, f"{name}_before")
        new.name = name


def read_instead(value: ir.Value, replacement: ir.Value, *, keep: Sequence[ir.Node] = ()) -> None:
    """All readers of `value`, those inside control-flow bodies too, read `replacement`, but for the nodes in `keep`."""
    for use in tuple(value.uses()):
        if use.node not in keep:
            use.node.replace_input_with(use.idx, replacement)


def remove(node: ir.Node) -> None:
    """Take a node whose outputs nobody reads out of the graph."""
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _graph_of(value: ir.Value) -> ir.Graph:
    graph = value.graph
    if graph is None:
        producer = value.producer()
        graph = producer.graph if producer is not None else None
    assert isinstance(graph, ir.Graph)
    return graph


def forget_types(graph: ir.Graph) -> None:
    """Drop types and shapes of inner values: any runtime infers them, and in a file they cost as much as nodes do."""
    values = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in values:
        if not value.is_graph_input() and not value.is_graph_output():
            value.type, value.shape = None, None


def take_input(node: ir.Node, dtype: str) -> ir.Value:
    """A new value of an ONNX type such as `int8` that takes the place of what `node` computes; the node is removed."""
    assert isinstance(node.graph, ir.Graph)
    value = ir.Value(name=node.outputs[0].name, type=ir.TensorType(ir.DataType[dtype.upper()]))
    node.outputs[0].name = fresh_name(node.graph, f"{value.name}_before")
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return value


def add_elements(graph: ir.Graph, dtype: str, elements: Sequence[ir.Value], hint: str) -> ir.Value:
    """A new graph input, of an ONNX type such as `bool`, whose elements are these values, which nodes may read already.

    One input, since what onnxruntime does about a feed grows with the square of their number.
    """
    kind = ir.TensorType(ir.DataType[dtype.upper()])
    value = ir.Value(name=fresh_name(graph, hint), type=kind, shape=ir.Shape([len(elements)]))
    graph.inputs.append(value)
    counted = {"num_outputs": len(elements)} if graph.opset_imports[""] >= SPLIT_COUNTS else {}
    for element in elements:
        element.name = fresh_name(graph, hint)
    split = ir.node("Split", [value], counted, outputs=elements, name=fresh_name(graph, hint))
    graph.insert_before(graph[0], split)
    return value


def new_branch(
    graph: ir.Graph, condition: ir.Value, then: Sequence[ir.Node], other: Sequence[ir.Node], name: str, output: str
) -> ir.Node:
    """An If with one output, which is that of the last node of the branch taken; not yet part of the graph.

    The nodes are in no graph yet; what they read may be values of `graph`.
    """
    bodies = [
        ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=f"{name}_{which}", opset_imports=graph.opset_imports)
        for nodes, which in ((then, "then"), (other, "else"))
    ]
    branches = [ir.AttrGraph(key, body) for key, body in zip(("then_branch", "else_branch"), bodies, strict=True)]
    node = ir.node("If", [condition], name=fresh_name(graph, name))
    for branch in branches:
        node.attributes[branch.name] = branch
    node.outputs[0].name = fresh_name(graph, output)
    return node
