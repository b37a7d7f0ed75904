"""Constant folding: onnxscript's pass, with the limits that a tool for unknown models needs.

What is computed here is stored in the model and computed by numpy, in Python. So a node is folded only if its output
is known beforehand to be of bounded size, and if it is either small or one of the operators that numpy does at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from quark_onnx.core.operators import RANDOM
from quark_onnx.core.resource_faults import let_out
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import lift, quiet
from quark_onnx.graph.view import is_op
from quark_onnx.graph.without_weights import complaint

LIMIT = 1 << 25  # elements of an input or output: a constant as large as a weight may be transposed or cast
SMALL = 1 << 14  # elements that any operator may take, a loop in Python included

# fmt: off
FAST = frozenset({
    "Abs", "Add", "Cast", "Clip", "Concat", "Div", "Equal", "Exp", "Expand", "Flatten", "Gather", "Greater", "Less",
    "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Pad", "Pow", "Reciprocal", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Sigmoid", "Sign", "Slice",
    "Softmax", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
"""Operators that the reference implementation hands to numpy whole."""

WRONG = frozenset({"BatchNormalization", "GlobalMaxPool", "LRN", "Resize"})
"""Operators that the reference implementation of onnx 1.23 computes otherwise than onnxruntime, in some cases."""

FLATTENING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
"""Likewise below operator set 13, where `axis` stands for several axes."""


class Folded(NamedTuple):
    """`changed` says whether another round may find more; `failure` why the model was left as it was.

    sizes  of the constants that were read on the way, in bytes
    """

    changed: bool
    failure: str | None = None
    sizes: Mapping[str, int] = MappingProxyType({})


def fold_constants(model: ir.Model, computed: Collection[str] = ()) -> Folded:
    """Compute what depends on constants only, shapes of known tensors included.

    computed: values that the model goes on to compute, whatever they depend on.
    """
    from onnxscript import optimizer  # imported late: 0.1 s that `import quark_onnx` need not pay

    trial, sizes = copy(model), dict[str, int]()
    branches = [node for node in trial.graph.all_nodes() if is_op(node, "If")]

    def wanted(node: ir.Node) -> bool | None:
        if any(value.name in computed for value in node.outputs) or not affordable(node, model.opset_imports):
            return False
        sizes.update((v.name or "", int(v.const_value.nbytes)) for v in node.inputs if v and v.const_value)
        return None

    try:
        # The reference operators warn where the model divides by zero; the result is what the model computes.
        with quiet("onnxscript.optimizer"), np.errstate(all="ignore"), _unknown(branches):
            result = optimizer.fold_constants(
                trial,
                input_size_limit=LIMIT,
                output_size_limit=LIMIT,
                should_fold=wanted,
            )
            lift(trial)
        if result.modified and (fault := complaint(trial)) and complaint(model) is None:
            return Folded(False, fault)  # some of its rewrites write operators of a later operator set
    except Exception as error:  # whatever the library stumbles over, the model runs unfolded as well
        let_out(error)
        return Folded(False, " ".join(str(e).strip().split("\n", 1)[0] for e in (error, error.__cause__) if e))
    _forget_origins(trial)
    model.graph = trial.graph
    return Folded(bool(result.modified), sizes=sizes)


@contextmanager
def _unknown(nodes: Iterable[ir.Node]) -> Iterator[None]:
    """Operators that the library does not know: it inlines an If, but gives its nodes other names."""
    domains = [(node, node.domain) for node in nodes]
    for node, _ in domains:
        node.domain = "quark_onnx"
    yield
    for node, domain in domains:
        node.domain = domain


def affordable(node: ir.Node, opsets: Mapping[str, int]) -> bool:
    """Whether a node whose inputs are all constants may be computed now."""
    if node.op_type in RANDOM or node.op_type in WRONG:
        return False
    if node.op_type in FLATTENING and opsets.get("", 0) < 13:
        return False
    sizes = [value.const_value.size for value in node.inputs if value is not None and value.const_value is not None]
    elements = _output_elements(node, opsets)
    if elements is None or max((*sizes, elements)) > LIMIT:
        return False
    return node.op_type in FAST or max((*sizes, elements)) <= SMALL


def _output_elements(node: ir.Node, opsets: Mapping[str, int]) -> int | None:
    """How many elements output 0 will have, without computing it; None if that cannot be told."""
    if node.op_type == "NonZero" and node.inputs[0] is not None and node.inputs[0].shape is not None:
        return math.prod(node.inputs[0].shape.numpy()) * max(1, len(node.inputs[0].shape))
    known = node.outputs[0].shape
    if known is None or not known.is_static():
        known = _inferred(node, opsets)
    return math.prod(known.numpy()) if known is not None and known.is_static() else None


def _inferred(node: ir.Node, opsets: Mapping[str, int]) -> ir.Shape | None:
    """The output's shape, from those of the inputs and the values of the small ones."""
    types, data = {}, {}
    for value in node.inputs:
        tensor = None if value is None else value.const_value
        if value is None or tensor is None:
            continue
        types[value.name] = onnx.helper.make_tensor_type_proto(tensor.dtype.value, tensor.shape.numpy())
        if tensor.size <= 64 and tensor.dtype != ir.DataType.STRING:
            data[value.name] = ir.to_proto(ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name))
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
        imports = [onnx.helper.make_opsetid(*item) for item in opsets.items()]
        outputs = onnx.shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, data, opset_imports=imports)
        return ir.serde.deserialize_type_proto_for_shape(outputs[node.outputs[0].name])
    except Exception as error:  # no schema, or no inference for it
        let_out(error)
        return None


def _forget_origins(model: ir.Model) -> None:
    """The library writes into each folded value which tensors it came from: that would end up in the user's file."""
    for graph in model.graphs():
        values = [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        for value in values:
            for key in [key for key in value.metadata_props if key.startswith("pkg.onnxscript")]:
                del value.metadata_props[key]
