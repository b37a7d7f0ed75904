"""Give a layer without a bias one of zeros.

W x  =  W x + 0
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at


class Found(NamedTuple):
    node: Node
    bias: NDArray[Any]


def match(node: Node) -> Found | Skip:
    """Read only: the zeros to add, or why not."""
    if input_at(node, 2) is not None:
        return Skip("it has a bias")
    weight = constant(input_at(node, 1))
    if weight is None:
        return Skip("the weight is not constant")
    if node.op_type == "Gemm":
        channels = weight.shape[0 if node.attributes.get_int("transB", 0) else 1]
    elif node.op_type == "ConvTranspose":
        channels = weight.shape[1] * node.attributes.get_int("group", 1)
    else:
        channels = weight.shape[0]
    return Found(node, np.zeros(channels, weight.dtype))


def apply(found: Found) -> None:
    """Edit only."""
    set_constant(found.node, 2, found.bias, f"{found.node.name}_bias")


RULE = Rule("zero-bias", ("Conv", "ConvTranspose", "Gemm"), match, apply)
