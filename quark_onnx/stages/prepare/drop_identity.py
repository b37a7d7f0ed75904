"""An Identity goes: whoever reads its output reads its input.

    Identity(x)  =  x

It stays where a graph output needs a name of its own: x is a graph input, a constant, or another graph output.
"""

from __future__ import annotations

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import can_bypass


def match(identity: Node) -> Node | Skip:
    """Read only: the node, or why it has to stay."""
    return identity if can_bypass(identity) else Skip("a graph output needs a name of its own")


RULE = Rule("drop-identity", ("Identity",), match, bypass)
