"""How a layer looks as a matrix product: rows of its weight, patches of its input."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, rank
from quark_onnx.numerics.layer.im2col import ConvShape, kernel_of, rows_of

Array = NDArray[Any]


class Geometry(Protocol):
    """A layer as y = W z + b over positions; G groups, R rows each, K inputs each."""

    @property
    def layout(self) -> tuple[int, bool]:
        """Groups, and whether outputs are the weight's second axis: where these are alike, so are the rows."""

    @property
    def taps(self) -> int:
        """Positions of the kernel: so many runs of channels has a row; 1 of a matrix."""

    def rows(self, weight: Array) -> Array:
        """The weight as (G, R, K)."""

    def weight(self, rows: Array, like: Array) -> Array:
        """The inverse of `rows`: an array of the shape of `like`."""

    def samples(self, batch: Array) -> list[Array]:
        """The input sample by sample: (C, *spatial) for convolutions, (..., K) for matrices."""

    def shape(self, sample: Array) -> ConvShape | None:
        """The convolution that is computed on such a sample; None for a matrix."""


@dataclass(frozen=True)
class MatrixGeometry:
    """Gemm and MatMul: a position is a row of the input (a column, where the weight stands on the left).

    transposed  the weight is stored as (outputs, inputs)
    left        the weight is the first factor: y = W x
    across      the input is transposed (Gemm with transA)
    """

    transposed: bool
    left: bool = False
    across: bool = False

    @property
    def layout(self) -> tuple[int, bool]:
        return 1, not (self.transposed or self.left)

    @property
    def taps(self) -> int:
        return 1

    def rows(self, weight: Array) -> Array:
        return np.ascontiguousarray(weight if self.transposed or self.left else weight.T)[None]

    def weight(self, rows: Array, like: Array) -> Array:
        return np.ascontiguousarray(rows[0] if self.transposed or self.left else rows[0].T).reshape(like.shape)

    def samples(self, batch: Array) -> list[Array]:
        turned = np.swapaxes(batch, -1, -2) if self.left or self.across else batch
        return list(turned if turned.ndim > 2 else turned[:, None])

    def shape(self, sample: Array) -> None:
        return None


@dataclass(frozen=True)
class ConvGeometry:
    """Conv and ConvTranspose. `written` holds the pads as written; `auto_pad`, `output_shape` change them by size."""

    written: ConvShape
    auto_pad: str
    output_shape: tuple[int, ...]

    @property
    def layout(self) -> tuple[int, bool]:
        return self.written.group, self.written.transposed

    @property
    def taps(self) -> int:
        return math.prod(self.written.kernel)

    def rows(self, weight: Array) -> Array:
        return rows_of(weight, self.written)

    def weight(self, rows: Array, like: Array) -> Array:
        return kernel_of(rows, like.shape, self.written)

    def samples(self, batch: Array) -> list[Array]:
        return list(batch)

    def shape(self, sample: Array) -> ConvShape:
        """With explicit pads for an input of this size, as the ONNX specification resolves them."""
        size = sample.shape[1:]
        same = self.auto_pad.startswith("SAME")
        if not (same or self.output_shape):
            return self.written
        bare = replace(self.written, pads=(0,) * len(self.written.pads))
        strides = self.written.strides
        if self.written.transposed:
            wanted = self.output_shape or tuple(n * s for n, s in zip(size, strides, strict=True))
            total = [full - n for full, n in zip(bare.output_size(size), wanted, strict=True)]
            total = total if self.output_shape else [max(n, 0) for n in total]
        else:
            reach = [d * (k - 1) + 1 for d, k in zip(bare.dilations, bare.kernel, strict=True)]
            total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
        # the odd one goes to the end with SAME_UPPER; what an output_shape adds always stands at the end
        upper = self.auto_pad == "SAME_UPPER"
        begin = tuple((max(n, 0) + (not upper)) // 2 for n in total)
        return replace(bare, pads=begin + tuple(n - m for n, m in zip(total, begin, strict=True)))


def geometry(node: Node, weight: Value, data: Value, at: int) -> MatrixGeometry | ConvGeometry | Skip:
    """The geometry of a layer whose weight is input number `at`."""
    if node.op_type == "Gemm":
        if any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
            return Skip("its alpha or beta is not 1")
        turned = [node.attributes.get_int(name, 0) == 1 for name in ("transA", "transB")]
        return MatrixGeometry(transposed=turned[1], across=turned[0])
    if node.op_type == "MatMul":
        if rank(weight) != 2 or (rank(data) or 0) < 2:
            return Skip("the weight is not a matrix, or the input has fewer than two axes")
        return MatrixGeometry(transposed=False, left=at == 0)
    array = constant(weight)
    assert array is not None
    return conv_geometry(node, tuple(array.shape[2:]), transposed=node.op_type == "ConvTranspose")


def conv_geometry(node: Node, kernel: tuple[int, ...], *, transposed: bool = False) -> ConvGeometry:
    """The geometry that the attributes of a convolution say, whatever its operator is called."""
    axes = len(kernel)

    def ints(name: str, default: list[int]) -> tuple[int, ...]:
        return tuple(node.attributes.get_ints(name, default))

    shape = ConvShape(
        kernel=kernel,
        strides=ints("strides", [1] * axes),
        pads=ints("pads", [0] * 2 * axes),
        dilations=ints("dilations", [1] * axes),
        group=node.attributes.get_int("group", 1),
        transposed=transposed,
        output_padding=ints("output_padding", [0] * axes),
    )
    return ConvGeometry(shape, node.attributes.get_string("auto_pad", "NOTSET"), ints("output_shape", []))
