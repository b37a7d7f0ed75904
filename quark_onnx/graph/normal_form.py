"""A model as onnxruntime reads it, where it asks for less than ONNX's rules: in the one form that all the rest knows.

sparse initializers, a Constant of a sparse value     dense
an initializer twice                                  the first counts; one without a name goes
nodes in any order                                    sorted
a graph without a name                                has one
an IR version below 4                                 4: initializers need not be inputs
the domain "ai.onnx"                                  "", which is the same
a domain without an operator set                      its first; of ai.onnx.ml the newest
a function of another operator set                    its nodes are those of the model's
GroupNormalization of opsets 18 to 20                 InstanceNormalization, with a group as a channel
outputs without a type or shape                       what follows from the inputs
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from quark_onnx.graph.edit import add_constant, become, graph_of, new_node
from quark_onnx.graph.passes import infer_shapes, run
from quark_onnx.graph.view import is_op

FIRST_WITHOUT_INPUTS = 4
"""The IR version from which initializers need not be listed as inputs."""

_ML = "ai.onnx.ml"
_GROUPS_WITH_SCALES = range(18, 21)  # GroupNormalization has a scale for each group, and was taken back
_REMARKS = "quark_onnx.remarks"  # graph.meta: what the user should know of the model as it was


def remarks(model: ir.Model) -> tuple[str, ...]:
    """What a user should know of the model that was loaded."""
    return tuple(model.graph.meta.get(_REMARKS, ()))


def dense(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with dense tensors of different names: itself where it has no others, else a copy. And remarks."""
    _refuse_repeats(proto.graph)
    if not any(map(_is_odd, _graphs(proto.graph))) and not any(map(_has_sparse, proto.functions)):
        return proto, []
    twin, said = onnx.ModelProto(), list[str]()
    twin.CopyFrom(proto)
    for graph in _graphs(twin.graph):
        graph.initializer.extend(_filled(tensor, tensor.values.name) for tensor in graph.sparse_initializer)
        del graph.sparse_initializer[:]
        said += _without_repeats(graph)
        _fill_constants(graph)
    for function in twin.functions:
        _fill_constants(function)
    return twin, said


def _refuse_repeats(graph: onnx.GraphProto) -> None:
    """Of an attribute that is there twice the IR would keep the last, and onnxruntime keeps none."""
    for node in graph.node:
        names = [attribute.name for attribute in node.attribute]
        if len(set(names)) < len(names):
            raise ValueError(f"node {node.name!r} has an attribute twice")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _is_odd(graph: onnx.GraphProto) -> bool:
    names = {tensor.name for tensor in graph.initializer}
    return bool(graph.sparse_initializer) or len(names - {""}) < len(graph.initializer) or _has_sparse(graph)


def _has_sparse(body: onnx.GraphProto | onnx.FunctionProto) -> bool:
    return any(a.HasField("sparse_tensor") for n in body.node if n.op_type == "Constant" for a in n.attribute)


def _without_repeats(graph: onnx.GraphProto) -> list[str]:
    """Initializers that do not count go; a remark for each that says something else."""
    first: dict[str, onnx.TensorProto] = {}
    kept, said = [], []
    for tensor in graph.initializer:
        if first.setdefault(tensor.name, tensor) is not tensor:
            if (tensor.dims, tensor.data_type) != (first[tensor.name].dims, first[tensor.name].data_type):
                raise ValueError(f"initializer {tensor.name!r} is there twice, with different shapes or types")
            if tensor != first[tensor.name]:
                said.append(f"initializer {tensor.name!r} is in the model twice: the first counts, as in onnxruntime")
        elif tensor.name:
            kept.append(tensor)
    if len(kept) < len(graph.initializer):
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    return said


def _fill_constants(body: onnx.GraphProto | onnx.FunctionProto) -> None:
    for node in body.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                full = onnx.helper.make_attribute("value", _filled(attribute.sparse_tensor, ""))
                attribute.CopyFrom(full)


def _filled(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """The tensor with its zeros; indices are flat, or a row of coordinates for each value."""
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    full = np.zeros(tuple(sparse.dims), values.dtype)
    full[np.unravel_index(indices, full.shape) if indices.ndim == 1 else tuple(indices.T)] = values
    return onnx.numpy_helper.from_array(full, name)


def normalize(model: ir.Model) -> list[str]:
    """Bring the model into the form, in place.

    Returns:
        Remarks on what the user may not have meant.
    """
    run(model, common.RemoveUnusedFunctionsPass())  # type: ignore[no-untyped-call]
    for graph in model.graphs():
        graph.name = graph.name or "graph"
    try:
        model.graph.sort()
    except ValueError:  # a cycle: onnxruntime refuses it
        return []
    model.ir_version = max(model.ir_version or 0, FIRST_WITHOUT_INPUTS)
    _import_operators(model)
    said = _adopt_functions(model)
    if model.opset_imports.get("") in _GROUPS_WITH_SCALES:
        for node in [node for node in model.graph.all_nodes() if is_op(node, "GroupNormalization")]:
            _instances(model.graph, node)
    _describe_outputs(model)
    return [*said, *_in_training(model)]


def keep(model: ir.Model, said: list[str]) -> None:
    """Remember the remarks with the model, and with its copies."""
    model.graph.meta[_REMARKS] = tuple(said)


def _import_operators(model: ir.Model) -> None:
    bodies = [model.graph, *(function.graph for function in model.functions.values())]
    for body in bodies:
        if "ai.onnx" in body.opset_imports:
            body.opset_imports.setdefault("", body.opset_imports.pop("ai.onnx"))
        for node in body.all_nodes():
            node.domain = "" if node.domain == "ai.onnx" else node.domain
            if node.domain and node.domain not in model.opset_imports:
                model.opset_imports[node.domain] = _newest_ml() if node.domain == _ML else 1


def _newest_ml() -> int:
    schemas = onnx.defs.get_all_schemas_with_history()
    return int(max(schema.since_version for schema in schemas if schema.domain == _ML))


def _adopt_functions(model: ir.Model) -> list[str]:
    """Functions are of the operator sets of the model; remarks on those whose nodes mean something else by it."""
    said = []
    for function in model.functions.values():
        for domain, theirs in list(function.opset_imports.items()):
            ours = model.opset_imports.get(domain, theirs)
            function.opset_imports[domain] = ours
            nodes = [node for node in function if node.domain == domain]
            if changed := sorted({node.op_type for node in nodes if _since(node, ours) != _since(node, theirs)}):
                said.append(
                    f"the function {function.name!r} is of opset {theirs}, the model of {ours}: {', '.join(changed)} "
                    f"in it means what it does in opset {ours}, as in onnxruntime; to convert it, inline it before: "
                    "onnx.inliner.inline_local_functions(model, convert_version=True)"
                )
    return said


def _since(node: ir.Node, opset: int) -> int | None:
    """Since when the operator is what it is in this operator set; None for one that onnx does not know."""
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)
    except onnx.defs.SchemaError:
        return None


def _instances(graph: ir.Graph, node: ir.Node) -> None:
    """Write the node with operators that later sets have, too: what is normalized as one channel is one group."""
    x, scale, bias = node.inputs
    groups = add_constant(graph, np.array([0, node.attributes.get_int("num_groups", 1), -1]), f"{node.name}_groups")
    cut = new_node(graph, "Reshape", [x, groups], f"{node.name}_cut", f"{node.name}_cut")
    epsilon = {"epsilon": node.attributes.get_float("epsilon", 1e-5)}
    inputs = [cut.outputs[0], scale, bias]
    normal = new_node(graph, "InstanceNormalization", inputs, f"{node.name}_normal", f"{node.name}_normal", epsilon)
    sizes = new_node(graph, "Shape", [x], f"{node.name}_sizes", f"{node.name}_sizes")
    graph_of(node).insert_before(node, [cut, normal, sizes])
    become(node, "Reshape", [normal.outputs[0], sizes.outputs[0]])


def _describe_outputs(model: ir.Model) -> None:
    if all(value.type is not None and value.shape is not None for value in model.graph.outputs):
        return
    twin = model.clone()
    infer_shapes(twin)
    for value, known in zip(model.graph.outputs, twin.graph.outputs, strict=True):
        value.type, value.shape = value.type or known.type, known.shape if value.shape is None else value.shape


def _in_training(model: ir.Model) -> list[str]:
    """Remarks on normalizations that learn while they run."""
    nodes = [node for node in model.graph.all_nodes() if node.op_type == "BatchNormalization" and not node.domain]
    return [
        f"BatchNormalization {node.name!r} is in training mode: it computes with the statistics of each batch, not "
        "with those that were learned; export the model in eval mode"
        for node in nodes
        if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1
    ]
