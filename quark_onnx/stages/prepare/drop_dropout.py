"""A Dropout goes: in inference it does nothing.

    Dropout(x, ratio, training_mode = false)  =  x

It stays where the mask is read, where training_mode is or may be true, and where a graph output needs its name.
"""

from __future__ import annotations

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import bypass
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import can_bypass, constant, input_at


def match(dropout: Node) -> Node | Skip:
    """Read only: the node, or why it has to stay."""
    mode = input_at(dropout, 2)
    training = constant(mode)
    if mode is not None and (training is None or training.any()):
        return Skip("it is or may be in training mode")
    return dropout if can_bypass(dropout) else Skip("its mask is read, or a graph output needs a name of its own")


RULE = Rule("drop-dropout", ("Dropout",), match, bypass)
