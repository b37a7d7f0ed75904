"""Rows of a table that are looked up as integers, and made float behind the Gather.

8, 16 bits   Gather(codes) → DequantizeLinear by 1 → · Gather(scales)                            a scale per row
4 bits       Gather(bytes) → BitwiseAnd, BitShift → Concat → the same → Reshape                  a scale per block

onnxruntime's Gather takes no 4 bits. A byte holds two codes of a block, raised by 8: one of its first half in the low
bits, and one of its second half, so that both halves follow each other behind the Concat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.edit import add_constant, become, fresh_name, new_node
from quark_onnx.graph.view import rank
from quark_onnx.numerics.quantizer import carrier

RAISED = 8
"""What makes codes of 4 bits unsigned."""


def by_row(format: Format, q: QParams) -> bool:
    """Whether a table of this format is looked up as integers; else it is dequantized as a whole."""
    rows = format.axis == 0 and format.block is None and format.storage_bits >= 8
    return (rows or in_blocks(format)) and not q.zero_point.any()


def in_blocks(format: Format) -> bool:
    """Whether two codes of it make a byte."""
    return format.bits == 4 and format.signed and format.axis == 1 and format.block is not None


class Table:
    """The constants of a table (rows, width …), in a graph."""

    def __init__(self, graph: Graph, name: str, codes: NDArray[Any], q: QParams, format: Format) -> None:
        self.graph, self.packed = graph, in_blocks(format)
        self.width = codes.shape[-1]
        kind, scale = carrier(format), q.scale.reshape(-1, *[1] * (codes.ndim - 1))
        if self.packed:
            codes, kind, scale = _bytes(codes, format.block or 1), "uint8", q.scale[..., None]
        self.codes = add_constant(graph, codes.astype(kind), f"{name}_quantized")
        self.scales = add_constant(graph, scale, f"{name}_scale")
        self.unit = [add_constant(graph, np.ones((), np.float32), f"{name}_unit")]
        if self.packed:
            numbers = {"low_bits": 15, "shift": 4, "zero_point": RAISED}
            low, shift, zero = (add_constant(graph, np.uint8(n), f"{name}_{key}") for key, n in numbers.items())
            self.masks = low, shift
            self.unit.append(zero)

    def read_by(self, node: Node) -> Node:
        """Have a Gather of the float table look up integers. Returns the first of the nodes in front of it."""
        name, output = node.name or "", node.outputs[0].name
        indices = node.inputs[1]
        rows, scales = (
            new_node(self.graph, "Gather", [source, indices], "", f"{output}_{part}")
            for source, part in ((self.codes, "rows"), (self.scales, "scales"))
        )
        unpacked = self._unpacked(rows.outputs[0]) if self.packed else []
        codes = (unpacked or [rows])[-1].outputs[0]
        restored = new_node(
            self.graph, "DequantizeLinear", [codes, *self.unit], f"{name}_DequantizeLinear", f"{output}_restored"
        )
        factors = restored.outputs[0], scales.outputs[0]
        nodes = [rows, *unpacked, scales, restored]
        if self.packed:
            nodes.append(new_node(self.graph, "Mul", factors, f"{name}_scaled", f"{output}_scaled"))
        self.graph.insert_before(node, nodes)
        if self.packed:
            dims = np.array([*[0] * (rank(indices) or 0), self.width], np.int64)
            become(node, "Reshape", [nodes[-1].outputs[0], add_constant(self.graph, dims, f"{name}_shape")])
        else:
            become(node, "Mul", factors)
        rows.name, node.name = name, fresh_name(self.graph, f"{name}_{'joined' if self.packed else 'scaled'}")
        scales.name = fresh_name(self.graph, f"{name}_scales")
        return rows

    def _unpacked(self, rows: Value) -> Sequence[Node]:
        """Both halves of the blocks of looked up bytes, joined."""
        low = new_node(self.graph, "BitwiseAnd", [rows, self.masks[0]], f"{rows.name}_And", f"{rows.name}_low")
        how = {"direction": "RIGHT"}
        high = new_node(self.graph, "BitShift", [rows, self.masks[1]], f"{rows.name}_Shift", f"{rows.name}_high", how)
        halves, last = [low.outputs[0], high.outputs[0]], {"axis": -1}
        joined = new_node(self.graph, "Concat", halves, f"{rows.name}_Concat", f"{rows.name}_codes", last)
        return [low, high, joined]


def _bytes(codes: NDArray[Any], block: int) -> NDArray[np.uint8]:
    """Codes (rows, width) of 4 bits, two in a byte: (rows, blocks, block / 2)."""
    raised = (codes + RAISED).astype(np.uint8).reshape(len(codes), -1, 2, block // 2)
    return np.asarray(raised[:, :, 0] | raised[:, :, 1] << 4, np.uint8)
