"""Normalizations behind a sum, kept apart from it in onnxruntime's CPU provider.

It makes a SkipLayerNormalization of an Add and the LayerNormalization that alone reads it, and this kernel takes seven
to eight times as long as the two (onnxruntime 1.32, one thread: 128 rows of 384 numbers 242 µs and 33 µs, 197 of 768
761 µs and 91 µs; of a small transformer it is a fifth of the time). It does so where γ has one axis. With a second one
of length 1 the operator is the same.
"""

from __future__ import annotations

import numpy as np

from quark_onnx.graph import Model, Node
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.view import constant, is_constant, is_op, rank, sole_reader


def keep_apart(quantized: Model, prepared: Model) -> None:
    """Give each γ that would be lost to such a kernel a second axis, in place.

    prepared: the model that it was made of, whose ranks are known.
    """
    ranks = {node.name: rank(node.inputs[0]) or 0 for node in prepared.graph if is_op(node, "LayerNormalization")}
    for node in [node for node in quantized.graph if ranks.get(node.name, 0) > 1 and _behind_sum(node)]:
        gamma = constant(node.inputs[1])
        assert gamma is not None
        set_constant(node, 1, gamma[None], f"{node.name}_row")


def _behind_sum(node: Node) -> bool:
    if not is_op(node, "LayerNormalization") or node.attributes.get_int("axis", -1) != -1:
        return False
    total, gamma = node.inputs[0], constant(node.inputs[1])
    if total is None or gamma is None or gamma.ndim != 1 or gamma.dtype != np.float32:
        return False
    add = total.producer()
    varying = is_op(add, "Add") and not any(map(is_constant, add.inputs if add is not None else ()))
    return varying and sole_reader(total) is node
