"""Whether a product that OpenVINO's CPU plugin computes on integers is the same on every x64 processor.

Read from the codes in the model as it is written, of any tool: the plugin keeps those of int8 weights behind
DequantizeLinear, and moves scales only. A pair is counted in every order in which some processor adds
(`runtimes.openvino.pairs`). int8 activations are as bad as uint8: kernels add 128 to them first. uint8 weights do not
occur here, as they are multiplied in float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.runtimes.openvino.pairs import orders, rows_in
from quark_onnx.engine.saturation_certificate import DEPTHWISE, NO_CONSTANT, Certificate, counted
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_op

MOVES = ("Identity", "Transpose", "Reshape")
"""Operators through which weights are looked for."""


def certificate(node: Node) -> Certificate:
    """Of a layer that the plugin executes on integers; with several orders, that of the one with most unsafe pairs."""
    codes = _codes(input_at(node, 1))
    if codes is None or codes.dtype != np.int8:
        return NO_CONSTANT
    if is_op(node, "Gemm", "MatMul"):
        turned = is_op(node, "Gemm") and node.attributes.get_int("transB", 0) == 1
        rows = codes if turned or codes.ndim < 2 else np.swapaxes(codes, -1, -2)
        return counted(rows, rows.shape[-1])
    found = [counted(*rows_in(order, codes, node)) for order in sorted(orders(node, codes.shape))]
    return max(found, key=lambda one: one.unsafe_pairs, default=DEPTHWISE)


def _codes(value: Value | None) -> NDArray[Any] | None:
    """The integers of a weight, as it is laid out where it is read; None where it is no constant that is only moved."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if is_op(node, "DequantizeLinear"):
        return constant(input_at(node, 0))
    codes = _codes(input_at(node, 0)) if is_op(node, *MOVES) else None
    if codes is None or is_op(node, "Identity"):
        return codes
    if is_op(node, "Transpose"):
        return codes.transpose(node.attributes.get_ints("perm", range(codes.ndim)[::-1]))
    wanted = constant(input_at(node, 1))
    if wanted is None:
        return None
    sizes = zip(wanted, (*codes.shape, *wanted), strict=False)  # 0: as it is
    return codes.reshape([int(size) or old for size, old in sizes])
