"""Operators whose meaning changes with the operator set, where onnx's converter does not see to it.

Hardmax             up to 12 it takes all axes from `axis` on for one, later that axis alone:
                    Hardmax(x)  =  Reshape(Hardmax(Flatten(x)), Shape(x)), the same in all operator sets
GroupNormalization  up to 20 it has a scale and a bias per group, later per channel
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.edit import become, graph_of, new_node, set_constant
from quark_onnx.graph.view import constant, is_op, shape


def carry_over(model: ir.Model, current: int, wanted: int) -> None:
    """Rewrite them in a model of operator set `current` so that they mean the same in `wanted`, a later one."""
    for node in list(model.graph.all_nodes()):
        if is_op(node, "Hardmax") and current < 13 <= wanted:
            _flatten(model, node)
        elif is_op(node, "GroupNormalization") and current < 21 <= wanted:
            _by_channel(node)


def _flatten(model: ir.Model, hardmax: ir.Node) -> None:
    source, name = hardmax.inputs[0], f"{hardmax.outputs[0].name}"
    from_axis = {"axis": hardmax.attributes.get_int("axis", 1)}
    dims = new_node(model.graph, "Shape", [source], f"{name}_Shape", f"{name}_shape")
    flat = new_node(model.graph, "Flatten", [source], f"{name}_Flatten", f"{name}_flat", from_axis)
    hard = new_node(model.graph, "Hardmax", flat.outputs, f"{name}_Hardmax", f"{name}_hard", {"axis": 1})
    graph_of(hardmax).insert_before(hardmax, [dims, flat, hard])
    become(hardmax, "Reshape", [hard.outputs[0], dims.outputs[0]])


def _by_channel(normalization: ir.Node) -> None:
    dims = shape(normalization.inputs[0])
    channels, groups = dims[1] if dims else None, normalization.attributes.get_int("num_groups", 1)
    for index in (1, 2):
        array = constant(normalization.inputs[index])
        if array is not None and channels is not None:
            set_constant(normalization, index, np.repeat(array, channels // groups), f"{normalization.name}_{index}")
