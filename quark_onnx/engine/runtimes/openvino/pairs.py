"""Which weights OpenVINO's CPU plugin adds in 16 bits with which others, on x64 without VNNI.

Its kernels are those of oneDNN, and which one runs depends on the processor, and on sizes: one layer may have several
orders (docs/decisions/033-pairs-in-openvinos-order.md). In words of `numerics.weight_pairs`, rows standing as
`numerics.layer.im2col.rows_of` lays them out:

    tap      runs are the channels at one position of the kernel, and the whole row of a matrix
    row      the whole row, positions of the kernel one after the other
    line     runs are the positions along the last axis of the kernel, each with its channels
    turned   the whole row, positions along the first axis of the kernel first: (0,0), (1,0), …, (0,1), …
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from numpy.typing import NDArray

from quark_onnx.engine.layers.matrix_geometry import conv_geometry
from quark_onnx.graph import Node
from quark_onnx.graph.view import is_op

Order = Literal["tap", "row", "line", "turned"]


def orders(node: Node, shape: Sequence[int]) -> frozenset[Order]:
    """All in which some processor adds, for a layer with a weight of this shape; where all make the same pairs, one."""
    groups, outputs, channels, positions = node.attributes.get_int("group", 1), shape[0], shape[1], prod(shape[2:])
    if not is_op(node, "Conv") or channels % 2 == 0 or positions == 1:
        return frozenset({"tap"})
    if channels == 1:
        return frozenset() if outputs == groups else frozenset({"row", "line", "turned"})
    return frozenset({"tap", "row"} if groups > 1 else {"tap"})


def rows_in(order: Order, weight: NDArray[Any], node: Node) -> tuple[NDArray[Any], int]:
    """A Conv's or ConvTranspose's weight as rows (G, R, K) whose neighbours are added, and how long a run is."""
    if order == "turned":
        weight = weight.transpose(0, 1, *range(weight.ndim - 1, 1, -1))
    kernel = weight.shape[2:]
    rows = conv_geometry(node, kernel, transposed=is_op(node, "ConvTranspose")).rows(weight)
    inputs = rows.shape[-1]
    parts = {"tap": prod(kernel), "line": prod(kernel[:-1])}
    return rows, inputs // parts.get(order, 1)
