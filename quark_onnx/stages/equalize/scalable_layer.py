"""A layer whose weight may be scaled: rows by what its output carries, columns by what its input carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.channels import Kernel, kernel
from quark_onnx.graph.large_weights import let_go
from quark_onnx.graph.view import constant, input_at, is_constant, numpy_dtype, rank, shape
from quark_onnx.numerics.equalization import channel_matrix, magnitudes

Array = NDArray[Any]


class Layer(NamedTuple):
    """A layer as found.

    bias        None when it has none, or one that cannot be changed
    fixed_rows  why its rows cannot be scaled: a bias that cannot be changed
    repeat      how many consecutive inputs carry one factor (Flatten)
    """

    kernel: Kernel
    bias: Value | None
    fixed_rows: str | None = None
    repeat: int = 1

    @property
    def name(self) -> str:
        """Of the node."""
        return self.kernel.node.name or ""

    @property
    def output(self) -> str:
        """Name of the tensor that the layer writes."""
        return self.kernel.node.outputs[0].name or ""

    def for_bias(self, values: Array) -> dict[str, Array]:
        """One value per output channel in the bias's shape, by the bias's name; nothing when there is none."""
        if self.bias is None:
            return {}
        ones = (1,) * ((rank(self.bias) or 1) - 1)
        return {self.bias.name or "": values.reshape(*ones, -1)}

    def _weight(self) -> Array:
        """(groups, outputs, inputs, taps)"""
        array = constant(self.kernel.value)
        assert array is not None
        return self.kernel.blocks(array)

    def sizes(self) -> Array:
        """The largest magnitude by output and input channel, as `numerics.equalization` wants it."""
        weight = self._weight()
        size = magnitudes(weight.reshape(*weight.shape[:2], -1), weight.shape[2])
        let_go(self.kernel.value.const_value)
        return size if self.repeat == 1 else self._runs(size).max(-1)

    def response(self) -> Array:
        """What comes out where every position of an input channel is 1: (outputs, inputs), diagonal when depthwise."""
        response = channel_matrix(self._weight().sum(-1, dtype=np.float64))
        return response if self.repeat == 1 else self._runs(response).sum(-1)

    def _runs(self, matrix: Array) -> Array:
        """(outputs, inputs, repeat): runs of inputs that carry one factor."""
        whole = np.diag(matrix) if matrix.ndim == 1 else matrix
        return whole.reshape(len(whole), -1, self.repeat)

    def factor(self, rows: Array | None, columns: Array | None) -> Array:
        """By what the weight is multiplied; None: by 1. `columns` has one number per channel of the space it reads."""
        groups, dtype = self.kernel.groups, numpy_dtype(self.kernel.value)
        left = np.ones(self.kernel.outputs if groups > 1 else 1) if rows is None else rows
        right = np.ones(self.kernel.inputs if groups > 1 else 1) if columns is None else columns.repeat(self.repeat)
        blocks = left.astype(dtype).reshape(groups, -1, 1) * right.astype(dtype).reshape(groups, 1, -1)
        return self.kernel.unblocked(blocks)


def read(node: Node) -> Layer | Skip:
    """The layer at `node`, or why its weight cannot be scaled: it must be a constant of its own, with enough digits."""
    found = kernel(node)
    if isinstance(found, Skip):
        return found
    if not _own(found.value):
        return Skip("its weight is shared")
    dtype = numpy_dtype(found.value)
    if dtype not in ("float32", "float64"):
        return Skip(f"its weight holds {dtype}")
    bias = input_at(node, 2)
    if bias is None:
        return Layer(found, None)
    if not is_constant(bias) or not _own(bias):
        return Layer(found, None, "its bias is shared or not constant")
    if shape(bias) not in ((found.outputs,), (1, found.outputs)):
        return Layer(found, None, "its bias is not one value per channel")
    return Layer(found, bias)


def _own(value: Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()
