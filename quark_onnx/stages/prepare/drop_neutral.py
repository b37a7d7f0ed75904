"""Drop a Mul or Div by 1, and an Add or Sub of 0.

    1 · x  =  x / 1  =  x + 0  =  x − 0  =  x

Paddle writes Swish with its factor, x · sigmoid(1 · x): a kernel for nothing, and no other pattern is seen through it.
"""

from __future__ import annotations

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import is_op
from quark_onnx.stages.prepare.scalars import Operand, operand


def match(node: Node) -> Operand | Skip:
    """Read only: the operator, or why it stays."""
    found = operand(node, "Mul", "Div", "Add", "Sub")
    neutral = 1.0 if is_op(node, "Mul", "Div") else 0.0
    if found is None or found.number != neutral or (found.at == 1 and is_op(node, "Div", "Sub")):
        return Skip("it changes its input")
    if node.outputs[0].is_graph_output():
        return Skip("it gives a model output its name")
    return found


def apply(found: Operand) -> None:
    """Edit only."""
    bypass(found.node, found.at)


RULE = Rule("drop-neutral", ("Mul", "Div", "Add", "Sub"), match, apply)
