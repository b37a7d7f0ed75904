"""The weights that com.microsoft's Attention holds, in front of it: what is left is MultiHeadAttention.

    Attention(x, [Wq Wk Wv], [bq bk bv])  =  MultiHeadAttention(x Wq + bq, x Wk + bk, x Wv + bv)

    past (2, …)      its two halves               present        both of them, stacked again

Three products of a transformer's six run on integers then, each with scales of its own. What multiplies two
activations, scores and values, stays one kernel.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, add_outputs, become, graph_of, new_node, take_over
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.value_info import tell
from quark_onnx.graph.view import constant, constant_tensor, input_at, numpy_dtype, rank, same_first
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN, floats, integers, is_read, opset, put

KEPT = ("num_heads", "scale", "mask_filter_value", "unidirectional")

_AXES_ARE_INPUTS = 13  # of Unsqueeze

_COLUMNS_OF = "quark_onnx.columns_of"  # value.meta: name of the initializer, and the first of its columns


class Found(NamedTuple):
    """`ends` are the columns of the weight where queries, keys and values end."""

    node: Node
    x: Value
    ends: tuple[int, ...]


def match(node: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    x, weight, bias, mask = (input_at(node, i) for i in range(4))
    tensor = constant_tensor(weight)
    if tensor is None or len(tensor.shape) != 2:
        return Skip("its weight is computed at run time")
    if bias is not None and constant_tensor(bias) is None:
        return Skip("its bias is computed at run time")
    if any(node.attributes.get_int(name, 0) for name in ("do_rotary", "past_present_share_buffer")):
        return Skip("it rotates its inputs, or writes into its past")
    if x is None or not floats(x, weight) or (mask is not None and rank(mask) is None):
        return Skip(UNKNOWN)
    if rank(mask) == 1 and not same_first(mask, x):
        return Skip("its mask may hold where each sample begins, which MultiHeadAttention takes in no such form")
    if is_read(node, 1) and opset(node) < _AXES_ARE_INPUTS:
        return Skip(f"its present is made of an Unsqueeze of operator set {_AXES_ARE_INPUTS}")
    columns = int(tensor.shape[1])
    sizes = node.attributes.get_ints("qkv_hidden_sizes", None) or [columns // 3] * 3
    return Found(node, x, tuple(accumulate(sizes)))


def apply(found: Found) -> None:
    """Edit only."""
    node, (mask, past, bias) = found.node, (input_at(found.node, i) for i in (3, 4, 5))
    parts = [_projected(found, which) for which in range(3)]
    inputs = [*parts, None, mask, bias, *([] if past is None else _halves(node, past))]
    while inputs[-1] is None:
        inputs.pop()
    halves = _stacked(node, node.outputs[1]) if is_read(node, 1) else []
    become(node, "MultiHeadAttention", inputs, DOMAIN, KEPT)
    for half, value in zip(halves, add_outputs(node, [f"{node.name}_present"] * len(halves)), strict=True):
        half.replace_input_with(0, value)
    dims = [None, None] if found.x.shape is None else list(found.x.shape)[:2]  # names of dimensions, too
    tell(node.outputs[0], numpy_dtype(found.x) or "float", [*dims, found.ends[2] - found.ends[1]])


def _projected(found: Found, which: int) -> Value:
    """Queries, keys or values: x W + b of that part."""
    node, columns = found.node, slice((0, *found.ends)[which], found.ends[which])
    product = put(node, "MatMul", [found.x, _part(node, node.inputs[1], columns)])
    bias = input_at(node, 2)
    return product if bias is None else put(node, "Add", [product, _part(node, bias, columns)])


def _part(node: Node, value: Value | None, columns: slice) -> Value:
    """Columns of a constant as one of their own; layers that share their weights share these."""
    array = constant(value)
    assert value is not None
    assert array is not None
    graph, origin = graph_of(node), (value.name, columns.start)
    part = next((one for one in graph.initializers.values() if one.meta.get(_COLUMNS_OF) == origin), None)
    if part is None:
        part = add_constant(graph, np.ascontiguousarray(array[..., columns]), f"{value.name}_{columns.start}")
        part.meta[_COLUMNS_OF] = origin
    return part


def _halves(node: Node, past: Value) -> list[Value]:
    """Past keys and past values."""
    graph = graph_of(node)
    indices = [add_constant(graph, np.array(at, np.int64), f"{node.name}_at") for at in (0, 1)]
    return [put(node, "Gather", [past, index]) for index in indices]


def _stacked(node: Node, present: Value) -> list[Node]:
    """Two nodes behind this one, as yet without what they read, of which `present` is made."""
    graph, name = graph_of(node), present.name or ""
    halves = [
        new_node(graph, "Unsqueeze", [None, integers(node, 0)], f"{name}_{which}_half", f"{name}_{which}_stacked")
        for which in ("key", "value")
    ]
    whole = new_node(graph, "Concat", [half.outputs[0] for half in halves], f"{name}_both", f"{name}_both", {"axis": 0})
    graph.insert_after(node, [*halves, whole])
    take_over(present, whole.outputs[0])
    return halves


RULE = Rule("attention-weights", ("Attention",), match, apply, DOMAIN)
