"""Hardmax of matrices, which means the same in all operator sets.

Up to operator set 12 it takes all axes from `axis` on for one, later that axis alone, and onnx's converter does not see
to it as it does for Softmax:

    Hardmax(x)  =  Reshape(Hardmax(Flatten(x)), Shape(x))
"""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.graph.edit import become, graph_of, new_node
from quark_onnx.graph.view import is_op

TAKES_ONE_AXIS = 13
"""The operator set from which on `axis` is one axis."""


def flatten_hardmax(model: ir.Model) -> None:
    """Rewrite every Hardmax of a model of an operator set below `TAKES_ONE_AXIS`."""
    for node in [node for node in model.graph.all_nodes() if is_op(node, "Hardmax")]:
        source, name = node.inputs[0], f"{node.outputs[0].name}"
        from_axis = {"axis": node.attributes.get_int("axis", 1)}
        shape = new_node(model.graph, "Shape", [source], f"{name}_Shape", f"{name}_shape")
        flat = new_node(model.graph, "Flatten", [source], f"{name}_Flatten", f"{name}_flat", from_axis)
        hard = new_node(model.graph, "Hardmax", flat.outputs, f"{name}_Hardmax", f"{name}_hard", {"axis": 1})
        graph_of(node).insert_before(node, [shape, flat, hard])
        become(node, "Reshape", [hard.outputs[0], shape.outputs[0]])
