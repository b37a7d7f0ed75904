"""An If whose condition is a constant is the branch that it takes, for every input.

If(true){then}{else}  =  then
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.inline_branch import inline_branch
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at


class Found(NamedTuple):
    node: Node
    branch: str


def match(node: Node) -> Found | Skip:
    """Read only: the branch that is taken, or why it is not known."""
    condition = constant(input_at(node, 0))
    if condition is None or condition.size != 1:
        return Skip("its condition is computed")
    return Found(node, "then" if condition.item() else "else")


def apply(found: Found) -> None:
    """Edit only."""
    inline_branch(found.node, found.branch)


RULE = Rule("inline-if", ("If",), match, apply)
