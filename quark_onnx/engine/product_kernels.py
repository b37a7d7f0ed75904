"""The kernels of onnxruntime's CPU provider that multiply integers by integers: which inputs, in which layout.

x64 without VNNI adds two products in 16 bits where the left side of a product is uint8 and the right one int8, and
nowhere else (docs/decisions/019-pairs-of-weights-are-certified.md). Sides are the kernel's: y = left · right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["matrix", "conv", "conv_integer"]


@dataclass(frozen=True)
class Product:
    """One product of a kernel, by numbers of its inputs.

    left, right                  the codes that are multiplied; None: quantized by the kernel itself, to uint8
    left_zero, right_zero        their zero points, whose type is that of the codes; None: there is none
    left_scale, right_scale      their scales; None: the result is the integer sum
    bias                         added to the sum, or to the result where that is float; None: there is none
    out_scale, out_zero          of the result; None, or absent in a node: it is not quantized
    layout   matrix: rows times columns; conv: the right side is a kernel, whose sums run over (*kernel, channel of
             the group); conv_integer: the left side is a kernel, whose sums run over (channel of the group, *kernel)
    exact_depthwise  a group of one channel in and one out has code of its own, which is exact
    """

    left: int | None
    right: int
    left_zero: int | None
    right_zero: int | None
    left_scale: int | None = None
    right_scale: int | None = None
    bias: int | None = None
    out_scale: int | None = None
    out_zero: int | None = None
    layout: Layout = "matrix"
    exact_depthwise: bool = False


_CONV = Product(0, 3, 2, 5, 1, 4, 8, 6, 7, "conv", exact_depthwise=True)

PRODUCTS: dict[str, tuple[Product, ...]] = {
    "QLinearConv": (_CONV,),
    "ConvInteger": (Product(1, 0, 3, 2, layout="conv_integer"),),
    "QGemm": (Product(0, 3, 2, 5, 1, 4, 6, 7, 8),),
    "QLinearMatMul": (Product(0, 3, 2, 5, 1, 4, None, 6, 7),),
    "MatMulInteger": (Product(0, 1, 2, 3),),
    "MatMulIntegerToFloat": (Product(0, 1, 4, 5, 2, 3, 6),),
    "DynamicQuantizeMatMul": (Product(None, 1, None, 3, None, 2, 4),),
    "DynamicQuantizeLSTM": (Product(None, 1, None, 9, None, 8), Product(None, 2, None, 11, None, 10)),
    "QAttention": (Product(0, 1, 6, 7, 3, 4),),
}
"""By operator in the graph that onnxruntime executes."""

EXACT_PRODUCTS = ("MatMulNBits",)
"""Kernels of products that never saturate: weights of 2, 4 and 8 bits beside floats, at every accuracy level."""
