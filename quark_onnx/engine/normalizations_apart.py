"""Normalizations behind a sum, kept apart from it in onnxruntime's CPU provider.

It makes a SkipLayerNormalization of an Add and the LayerNormalization that alone reads it, and this kernel takes seven
to eight times as long as the two (onnxruntime 1.32, one thread: 128 rows of 384 numbers 242 µs and 33 µs, 197 of 768
761 µs and 91 µs; of a small transformer it is a fifth of the time). A Sum of the two addends is the
same, as fast, and stays what it is.
"""

from __future__ import annotations

import numpy as np

from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import constant, is_constant, is_op, sole_reader


def keep_apart(quantized: Model) -> None:
    """Each addition that would be lost to such a kernel becomes a Sum, in place.

    A γ of two axes would do, too, but onnxruntime before 1.25 fuses it as well, and the kernel fails on it.
    """
    for node in quantized.graph:
        if (add := _sum_before(node)) is not None:
            add.op_type = "Sum"


def _sum_before(node: Node) -> Node | None:
    """The addition of two varying tensors that the LayerNormalization alone reads."""
    if not is_op(node, "LayerNormalization") or node.attributes.get_int("axis", -1) != -1:
        return None
    total, gamma = node.inputs[0], constant(node.inputs[1])
    if total is None or gamma is None or gamma.ndim != 1 or gamma.dtype != np.float32:
        return None
    add = total.producer()
    varying = add is not None and is_op(add, "Add") and not any(map(is_constant, add.inputs))
    return add if varying and sole_reader(total) is node else None
