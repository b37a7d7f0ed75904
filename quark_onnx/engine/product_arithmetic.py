"""What an integer kernel of onnxruntime computes of its inputs on x64 without VNNI, in numpy, to the bit.

s = Σ (x − zₓ)(w − z_w) + b          the sum of x·w saturates (`numerics.saturating_products`), all else is exact
y = round(s · sₓ s_w / s_y) + z_y    in float32, ties to even; or s · sₓ s_w, or s itself
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.layers.matrix_geometry import conv_geometry
from quark_onnx.engine.product_kernels import PRODUCTS, Product
from quark_onnx.graph import Node
from quark_onnx.numerics.layer.im2col import every_position, patches, rows_of
from quark_onnx.numerics.saturating_products import exact_product, saturating_product

Array = NDArray[Any]
Inputs = Sequence["Array | None"]
Multiply = Callable[[Array, Array], Array]
"""(G, n, K) uint8 and (G, R, K) int8 → sums (G, n, R)."""

UNKNOWN = ("QAttention", "DynamicQuantizeLSTM", "ConvInteger")
"""Kernels that are not computed here: nothing that we write runs on them."""


def computed(node: Node, inputs: Inputs, multiply: Multiply = saturating_product) -> Array:
    """The first output of a node whose operator is in `PRODUCTS`.

    Args:
        multiply: how uint8 is multiplied by int8; `exact_product`: as processors with VNNI do.

    Raises:
        ModelError: it is one of `UNKNOWN`.
    """
    if node.op_type in UNKNOWN:
        raise ModelError(f"{node.op_type} {node.name!r} cannot be computed as x64 without VNNI does: exclude it")
    (product,) = PRODUCTS[node.op_type]
    if product.left is None:
        product, inputs = _quantized_now(product, inputs)
    if product.layout == "conv":
        return _convolution(node, product, inputs, multiply)
    return _matrix(node, product, inputs, multiply)


def _quantized_now(product: Product, inputs: Inputs) -> tuple[Product, Inputs]:
    """The input quantized to uint8 by its own extremes, as DynamicQuantizeLinear does."""
    x = inputs[0]
    assert x is not None
    low, high = np.minimum(x.min(initial=0), np.float32(0)), np.maximum(x.max(initial=0), np.float32(0))
    scale = np.float32(1) if low == high else (high - low) / np.float32(255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    place = len(inputs)
    found = replace(product, left=place, left_zero=place + 1, left_scale=place + 2)
    return found, [*inputs, codes, zero.astype(np.uint8), scale]


def _at(inputs: Inputs, index: int | None) -> Array | None:
    return inputs[index] if index is not None and index < len(inputs) else None


def _side(inputs: Inputs, index: int | None) -> Array:
    found = _at(inputs, index)
    assert found is not None
    return found


def _zero(inputs: Inputs, index: int | None) -> Array:
    found = _at(inputs, index)
    return np.zeros(1, np.int64) if found is None else np.atleast_1d(found).astype(np.int64)


def _sums(left: Array, right: Array, left_zero: Array, right_zero: Array, multiply: Multiply) -> Array:
    """(G, n, K), (G, R, K) and zero points, one or one per row of `right` → Σ (x − zₓ)(w − z_w): (G, n, R)."""
    in_16_bits = left.dtype == np.uint8 and right.dtype == np.int8
    found = (multiply if in_16_bits else exact_product)(left, right)
    of_left = left.sum(-1, dtype=np.int64)[:, :, None]
    of_right = right.sum(-1, dtype=np.int64)[:, None, :]
    k = left.shape[-1]
    total: Array = found - left_zero * of_right - right_zero * of_left + k * left_zero * right_zero
    return total


def _finished(sums: Array, node: Node, product: Product, inputs: Inputs, channels: tuple[int, ...]) -> Array:
    """Bias, scales and rounding; `channels`: the shape of what there is one of per output channel."""

    def by_channel(index: int | None) -> Array | None:
        found = _at(inputs, index)
        return None if found is None else found.reshape(channels) if found.size > 1 and channels else found

    bias = by_channel(product.bias)
    whole = bias is not None and bias.dtype.kind == "i"
    total: Array = (sums + bias if whole else sums).astype(np.int32)
    left, right, out = by_channel(product.left_scale), by_channel(product.right_scale), by_channel(product.out_scale)
    if left is None or right is None:
        return total
    scale = np.float32(node.attributes.get_float("alpha", 1.0)) * left * right
    if out is None:
        found: Array = total.astype(np.float32) * scale
        return found if bias is None or whole else found + bias
    zero = _at(inputs, product.out_zero)
    info, shift = np.iinfo(np.uint8 if zero is None else zero.dtype), np.float32(0 if zero is None else zero.item())
    rounded = np.rint(np.clip(total.astype(np.float32) * (scale / out), info.min - shift, info.max - shift))
    return (rounded + shift).astype(info.dtype)


def _matrix(node: Node, product: Product, inputs: Inputs, multiply: Multiply) -> Array:
    left, right = _side(inputs, product.left), _side(inputs, product.right)
    left = np.swapaxes(left, -1, -2) if node.attributes.get_int("transA", 0) else left
    rows = right if node.attributes.get_int("transB", 0) else np.swapaxes(right, -1, -2)
    batch = np.broadcast_shapes(left.shape[:-2], rows.shape[:-2])
    lefts, rights = (np.broadcast_to(side, batch + side.shape[-2:]) for side in (left, rows))
    (m, k), n = left.shape[-2:], rows.shape[-2]
    zeros = _zero(inputs, product.left_zero), _zero(inputs, product.right_zero)
    if rows.ndim == 2:  # one right side for all: one product
        sums = _sums(lefts.reshape(1, -1, k), rows[None], *zeros, multiply)
    else:
        sums = _sums(lefts.reshape(-1, m, k), rights.reshape(-1, n, k), *zeros, multiply)
    return _finished(sums.reshape(*batch, m, n), node, product, inputs, ())


def _convolution(node: Node, product: Product, inputs: Inputs, multiply: Multiply) -> Array:
    x, weight = _side(inputs, product.left), _side(inputs, product.right)
    last = bool(node.attributes.get_int("channels_last", 0))
    samples = np.moveaxis(x, -1, 1) if last else x
    group, outputs, zero = node.attributes.get_int("group", 1), len(weight), _zero(inputs, product.left_zero)
    geometry, found = conv_geometry(node, weight.shape[2:]), []
    for sample in samples:
        shape = geometry.shape(sample)
        size = shape.output_size(sample.shape[1:])
        seen = patches(np.ascontiguousarray(sample), every_position(size), shape, zero.item())
        right_zero = np.broadcast_to(_zero(inputs, product.right_zero), (outputs,)).reshape(group, 1, -1)
        sums = _sums(seen, rows_of(weight, shape), zero, right_zero, multiply)
        done = _finished(sums, node, product, inputs, (group, 1, outputs // group))
        found.append(np.moveaxis(done, 1, 2).reshape(outputs, *size))
    stacked = np.stack(found)
    return np.moveaxis(stacked, 1, -1) if last else stacked
