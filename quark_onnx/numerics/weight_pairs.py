"""Pairs of weights whose products a processor may add in 16 bits.

x64 without VNNI multiplies u8 × s8 by vpmaddubsw: x₀w₀ + x₁w₁ of two neighbouring products is clipped to ±32,767. With
x up to 255 the sum fits for every input exactly where

    |w₀ + w₁| ≤ 128        (of two signs, neither product is beyond it)

The pairs are (0, 1), (2, 3), … along K in the kernel's own order, which is that of `layer.im2col.rows_of`; the last of
an odd K stands alone.

Where the unsigned side holds the weights, and x the signed one, from −128 on, a pair is safe up to w₀ + w₁ = 256.

On real codes u the constraint is a half-space per pair: the nearest point of it takes half of what is too much off each
of the two, and rounds to codes that are at most two steps beyond it.
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


def project(u: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest real codes (..., K) whose pairs are safe; u within the 8-bit grid."""
    even = u.shape[-1] // 2 * 2
    result = np.array(u, np.float32)
    pairs = result[..., :even].reshape(*u.shape[:-1], -1, 2)
    sums = pairs[..., :1] + pairs[..., 1:]  # numpy's sum along a short axis takes ten times as long
    pairs -= (sums - np.clip(sums, -LIMIT, LIMIT)) / 2
    result[..., :even] = pairs.reshape(*u.shape[:-1], even)
    return result


def repair(codes: NDArray[np.float32], u: NDArray[np.float32]) -> NDArray[np.float32]:
    """Codes (..., K) with safe pairs: of an unsafe one, that goes a step back which was rounded away from 0 the most.

    Args:
        codes: whole numbers, at most two beyond the limit in a pair: what rounding makes of `project(u)`.
        u: (..., K) what they were rounded from.
    """
    even = codes.shape[-1] // 2 * 2
    pairs = codes[..., :even].reshape(*codes.shape[:-1], -1, 2)
    sums = pairs[..., 0] + pairs[..., 1]
    unsafe = np.nonzero(np.abs(sums) > LIMIT)
    if not len(unsafe[0]):
        return codes
    sign = np.sign(sums[unsafe])
    away = (pairs[unsafe] - u[..., :even].reshape(pairs.shape)[unsafe]) * sign[:, None]
    first, both = away.argmax(-1), np.abs(sums[unsafe]) > LIMIT + 1
    repaired = np.array(codes)
    for which, some in ((first, np.ones_like(both)), (1 - first, both)):
        at = (*(axis[some] for axis in unsafe[:-1]), 2 * unsafe[-1][some] + which[some])
        repaired[at] -= sign[some]
    return repaired
