"""Dimensions that are known become constants, though others of the same tensor are not.

    Gather(Shape(x), i)  =  dims(x)[i]          Slice(Shape(x), a, b)  =  dims(x)[a:b]

where all dimensions asked for are known. onnxscript folds a Shape only if all of x is, and exporters ask for the
channels of tensors whose batch is dynamic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import add_constant, graph_of, remove, take_over
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_op, shape


class Found(NamedTuple):
    node: Node
    array: NDArray[np.int64]


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    source = node.inputs[0]
    dims = _dims(None if source is None else source.producer())
    if dims is None:
        return Skip("it is not a part of a shape")
    part = _gather(node, dims) if is_op(node, "Gather") else _slice(node, dims)
    if part is None:
        return Skip("which dimensions it takes is not constant")
    if any(dim is None for dim in part.flat):
        return Skip("the dimensions are not known")
    return Found(node, part.astype(np.int64))


def _dims(node: Node | None) -> NDArray[Any] | None:
    """The dimensions that a Shape node returns, None for each that is not known."""
    known = shape(input_at(node, 0)) if node is not None and is_op(node, "Shape") else None
    if node is None or known is None:
        return None
    return np.array(known[node.attributes.get_int("start", 0) : node.attributes.get_int("end", None)], dtype=object)


def _gather(node: Node, dims: NDArray[Any]) -> NDArray[Any] | None:
    indices = constant(input_at(node, 1))
    if indices is None or ((indices < -len(dims)) | (indices >= len(dims))).any():
        return None
    return np.asarray(dims[indices], dtype=object)


def _slice(node: Node, dims: NDArray[Any]) -> NDArray[Any] | None:
    start, end, step = (constant(input_at(node, index)) for index in (1, 2, 4))
    if start is None or end is None or start.size != 1 or end.size != 1:
        return None
    if input_at(node, 4) is not None and (step is None or (step != 1).any()):
        return None
    return dims[start.item() : end.item()]


def apply(found: Found) -> None:
    """Edit only."""
    array = add_constant(graph_of(found.node), found.array, f"{found.node.name}_dims")
    take_over(found.node.outputs[0], array)
    remove(found.node)


RULE = Rule("known-dims", ("Gather", "Slice"), match, apply)
