"""Which weights OpenVINO's CPU plugin adds in 16 bits with which others, on x64 without VNNI.

Its kernels are those of oneDNN, and which one runs depends on the processor: one layer may have several orders
(docs/decisions/033-pairs-in-openvinos-order.md). In words of `numerics.weight_pairs`, rows standing as
`numerics.layer.im2col.rows_of` lays them out:

    tap      runs are the channels at one position of the kernel, and the whole row of a matrix
    row      the whole row, positions of the kernel one after the other
    turned   likewise, positions in the order of the last axis of the kernel first: (0,0), (1,0), …, (0,1), …
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.layers.matrix_geometry import conv_geometry
from quark_onnx.graph import Node
from quark_onnx.graph.view import is_op

Order = Literal["tap", "row", "turned"]


def orders(node: Node, shape: Sequence[int]) -> frozenset[Order]:
    """All in which some processor adds, for a layer with a weight of this shape; of orders with the same pairs, one."""
    if not is_op(node, "Conv"):
        return frozenset({"tap"})
    groups, outputs, channels, kernel = node.attributes.get_int("group", 1), shape[0], shape[1], shape[2:]
    if channels == 1 and outputs == groups:
        return frozenset()  # depthwise has code of its own
    if channels % 2 == 0 or np.prod(kernel) == 1:
        return frozenset({"tap"})
    if channels > 1:
        return frozenset({"tap", "row"} if groups > 1 else {"tap"})
    turned: Order = "turned" if sum(size > 1 for size in kernel) > 1 else "row"
    return frozenset({turned, "row"} if groups > 1 else {turned})


def rows_in(order: Order, weight: NDArray[Any], node: Node) -> tuple[NDArray[Any], int]:
    """A Conv's or ConvTranspose's weight as rows (G, R, K) whose neighbours are added, and how long a run is."""
    kernel = weight.shape[2:]
    if order == "turned":
        weight = weight.transpose(0, 1, *range(weight.ndim - 1, 1, -1))
    rows = conv_geometry(node, weight.shape[2:], transposed=is_op(node, "ConvTranspose")).rows(weight)
    inputs = rows.shape[-1]
    return rows, inputs // int(np.prod(kernel)) if order == "tap" else inputs
