"""The bias of a layer: int32 codes at input scale · weight scale, and the weight scale that lets them fit; or 8 or 16
bits with a scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.numerics.quantizer import dequantize, quantize

LIMIT = 2**30
"""Largest bias code. Kernels add the bias to the products in one int32, which wraps: half of it is for the products, of
which 33,000 fit at 255 · 127 each."""

SMALLEST = 2.0**-120
"""Smallest product of scales: a normal float32, whatever it is rounded to."""


@dataclass(frozen=True, eq=False)
class OwnGrid:
    """The grid of a bias that has 8 or 16 bits and a scale of its own."""

    q: QParams
    format: Format

    def nearest(self, bias: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the quantized model adds instead of `bias`, of whatever shape."""
        flat = bias.reshape(-1)  # scales may be one per element
        return dequantize(quantize(flat, self.q, self.format), self.q, self.format).reshape(bias.shape)


def scale(input_scale: NDArray[np.float32], weight_scale: NDArray[np.float32], groups: int = 1) -> NDArray[np.float32]:
    """Scale of the bias, exactly the float32 product that integer kernels use; repeated for grouped ConvTranspose."""
    product = np.multiply(input_scale, weight_scale, dtype=np.float32)
    return np.tile(product, groups) if product.ndim else product


def codes(bias: NDArray[np.floating], bias_scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """(channels,) int32 codes, rounded in float64: float32 has 24 bits only."""
    return np.rint(bias.astype(np.float64) / bias_scale.astype(np.float64)).astype(np.int32)


def stored(
    bias: NDArray[np.floating], input_scale: NDArray[np.float32], weight_scale: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Codes as a model has them, and their scale: one for all, or one for each. One number is for all channels."""
    groups = bias.size // weight_scale.size if weight_scale.ndim and bias.size > weight_scale.size else 1
    found, flat = scale(input_scale, weight_scale, groups), bias.reshape(-1)
    return codes(np.broadcast_to(flat, found.shape) if flat.size == 1 and found.ndim else flat, found), found


def raised_scale(
    bias: NDArray[np.floating], input_scale: NDArray[np.float32], weight_scale: NDArray[np.float32], groups: int = 1
) -> NDArray[np.float32] | None:
    """The weight scale, as much larger as needed for every bias code to stay within `LIMIT`; None when none is needed.

    Args:
        bias: (channels,) float.
        weight_scale: scalar, or (channels / groups,).
    """
    magnitude = np.abs(bias.astype(np.float64)).reshape(-1)
    if weight_scale.ndim == 0:
        magnitude = magnitude.max(initial=0.0)
    else:
        magnitude = np.broadcast_to(magnitude, (groups * weight_scale.size,)).reshape(groups, -1).max(axis=0)
    needed = np.maximum(magnitude / LIMIT, SMALLEST) / np.float64(input_scale)
    if np.all(needed <= weight_scale):
        return None
    # one float32 step up: the product must not fall short again by rounding
    return np.where(needed > weight_scale, np.nextafter(np.float32(needed), np.float32(np.inf)), weight_scale).astype(
        np.float32
    )


def raise_costs_accuracy(factor: float, terms: int, activation: Format) -> bool:
    """Whether a weight scale that was raised `factor` times may cost a visible part of the output.

    A scale raised to the limit is s = |b| / (2³⁰ · sx). Rounding a weight to it is off by s/2 at most, its product
    with an input of up to `levels` steps sx by levels·|b|/2³¹, and a sum of `terms` of them by terms·levels/2³¹ of the
    bias itself. 8-bit activations stay below 1/256 of the bias up to 32,768 terms; 16-bit ones up to 128.
    """
    levels = activation.hi - activation.lo + 1
    return factor > 2 and terms * levels / (2 * LIMIT) > 1 / 256
