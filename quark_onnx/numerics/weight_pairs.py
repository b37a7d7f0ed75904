"""Pairs of weights whose products a processor may add in 16 bits.

x64 without VNNI multiplies u8 × s8 by vpmaddubsw: x₀w₀ + x₁w₁ of two neighbouring products is clipped to ±32,767. With
x up to 255 the sum fits for every input exactly where

    |w₀ + w₁| ≤ 128        (products of two signs cannot add up beyond the larger of them)

The pairs are (0, 1), (2, 3), … along K in the kernel's own order, which is that of `layer.im2col.rows_of`; the last of
an odd K stands alone.

Where the unsigned side holds the weights, and x the signed one, from −128 on, a pair is safe up to w₀ + w₁ = 256.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 128
"""Largest |w₀ + w₁| of a safe pair: 255 · 128 = 32,640, and 255 · 129 is beyond 16 bits."""

UNSIGNED_LIMIT = 256
"""The same of uint8 weights that stand on the left of int8 activations: −128 · 256 is the lowest number of 16 bits."""


def unsafe_pairs(codes: NDArray[Any], limit: int = LIMIT) -> NDArray[np.bool_]:
    """Which pairs of 8-bit weights (..., K) can saturate, as (..., K // 2); `limit`: signed ones, or unsigned."""
    even = codes.shape[-1] // 2 * 2
    wide: NDArray[np.int32] = codes[..., :even].astype(np.int32)
    sums: NDArray[np.int32] = np.abs(wide[..., ::2] + wide[..., 1::2])
    return sums > limit
