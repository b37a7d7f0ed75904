"""Well-kept passes of onnx_ir and onnxscript, called in one place."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from quark_onnx.core.errors import ModelError
from quark_onnx.core.resource_faults import let_out
from quark_onnx.graph.edit import claim, forget_names, fresh_name
from quark_onnx.graph.view import input_at, is_op
from quark_onnx.graph.without_weights import light_proto

logger = logging.getLogger(__name__)

_PAST = 4  # the input of Attention with the keys of its past


def run(model: ir.Model, *passes: ir.passes.PassBase) -> None:
    """Run library passes in place."""
    for step in passes:
        step(model)
    forget_names(model.graph)


def lift_constants(model: ir.Model) -> None:
    """Functions inlined, Constant nodes become initializers, initializers leave the input list.

    Raises:
        ModelError: a function cannot be inlined.
    """
    try:
        run(model, common.InlinePass(), common.RemoveUnusedFunctionsPass())  # type: ignore[no-untyped-call]
    except Exception as error:  # the library raises a mixture
        reason = str(error.__cause__ or error).strip().split("\n", 1)[0]
        raise ModelError(
            f"the functions of the model cannot be inlined: {reason}. Inline them beforehand: "
            "onnx.inliner.inline_local_functions(model, convert_version=True)"
        ) from error
    lift(model)
    run(model, common.RemoveInitializersFromInputsPass())


def lift(model: ir.Model) -> None:
    """Constant nodes become initializers."""
    run(model, common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0))


def infer_shapes(model: ir.Model) -> None:
    """Types and shapes of the main graph, where they can be told; weights are not copied, so any size will do.

    onnx_ir has a pass for this, but it takes sequences and optionals for tensors.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(light_proto(model), data_prop=_propagates(model.graph)).graph
    except Exception as error:  # a model that cannot be inferred may still run
        let_out(error)
        logger.debug("shape inference failed: %s", error)
        return
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for info in (*graph.value_info, *graph.output):
        value = values.get(info.name)
        if value is not None:
            value.type = ir.serde.deserialize_type_proto_for_type(info.type) or value.type
            shape = ir.serde.deserialize_type_proto_for_shape(info.type)
            value.shape = value.shape if shape is None else shape


def _propagates(graph: ir.Graph) -> bool:
    """Whether onnx may follow the values of small integer tensors: it writes out every Range, a billion numbers too.

    A Range of constants is folded first, if it is short; one that depends on the inputs is as long as they are.
    """
    constants = set(graph.initializers.values())
    for node in graph:
        if constants.issuperset(value for value in node.inputs if value is not None):
            if node.op_type == "Range":
                return False
            constants.update(node.outputs)
    return True


def remove_unused(model: ir.Model) -> None:
    """Nodes, initializers and opset imports that no output needs go.

    An Attention that has a past keeps all its outputs: onnxruntime computes none without a present.
    """
    kept = {n: [value.name for value in n.outputs] for n in model.graph.all_nodes() if is_op(n, "Attention")}
    run(model, common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass())
    for node, names in kept.items():
        if input_at(node, _PAST) is not None:
            node.resize_outputs(len(names))
            for value, name in zip(node.outputs, names, strict=True):
                value.name = name


def name_nodes(model: ir.Model) -> None:
    """Every node gets a name of its own; the first holder of a name keeps it, in bodies of control flow the last."""
    seen: set[str] = set()
    for node in (node for graph in model.graphs() for node in graph):
        if not node.name or node.name in seen:
            output = next((value.name for value in node.outputs if value.name), "nothing")
            node.name = fresh_name(model.graph, f"{node.op_type}_{output}")
        seen.add(node.name)


def name_values(model: ir.Model) -> None:
    """No tensor of a body has the name of another tensor: the branches of an If may use the same ones."""
    main = model.graph
    seen = {*main.initializers, *(v.name for v in (*main.inputs, *(out for node in main for out in node.outputs)))}
    for body in main.subgraphs():
        constants = list(body.initializers.values())
        body.initializers.clear()
        for value in (*body.inputs, *constants, *(out for node in body for out in node.outputs)):
            if value.name in seen:
                claim(main, value)
            seen.add(value.name)
        for constant in constants:
            body.register_initializer(constant)


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Library passes log what they cannot do; the reasons that matter are in our own notes."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
