"""Pairs of weights whose products a processor may add in 16 bits.

x64 without VNNI multiplies u8 × s8 by vpmaddubsw: x₀w₀ + x₁w₁ of two neighbouring products is clipped to ±32,767. With
x up to 255 the sum fits for every input exactly where

    |w₀ + w₁| ≤ 128        (of two signs, neither product is beyond it)

Rows have K columns in the order of `layer.im2col.rows_of`, and the pairs are (0, 1), (2, 3), … inside every run of
columns; the last of an odd run stands alone. How long a run is, the kernels of a runtime decide: a whole row, or the
channels at one position of the kernel. 0 stands for no pairs at all.

Where the unsigned side holds the weights, and x the signed one, from −128 on, a pair is safe up to w₀ + w₁ = 256.

On real codes u the constraint is a half-space per pair: the nearest point of it takes half of what is too much off each
of the two, and rounds to codes that are at most two steps beyond it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

LIMIT = 128
"""Largest |w₀ + w₁| of a safe pair: 255 · 128 = 32,640, and 255 · 129 is beyond 16 bits."""

UNSIGNED_LIMIT = 256
"""The same of uint8 weights that stand on the left of int8 activations: −128 · 256 is the lowest number of 16 bits."""

Number = TypeVar("Number", bound=np.generic)


def paired(rows: NDArray[Number], run: int) -> NDArray[Number]:
    """A view of rows (..., K) by pair: (..., runs, pairs of a run, 2). `run` divides K."""
    run = run or 1  # of a single column
    runs = rows.reshape(*rows.shape[:-1], rows.shape[-1] // run, run)
    return runs[..., : run // 2 * 2].reshape(*runs.shape[:-1], run // 2, 2)


def partners(inputs: int, run: int) -> list[int]:
    """Of every column the other one of its pair; itself, where it stands alone."""
    found = np.arange(inputs)
    pairs = paired(found, run)
    pairs[...] = pairs[..., ::-1].copy()
    return [int(column) for column in found]


def unsafe_pairs(codes: NDArray[Any], run: int, limit: int = LIMIT) -> NDArray[np.bool_]:
    """Which pairs of 8-bit weights (..., K) can saturate, as (..., pairs); `limit`: signed ones, or unsigned."""
    pairs = paired(codes, run)
    sums: NDArray[np.int32] = np.add(pairs[..., 0], pairs[..., 1], dtype=np.int32, casting="unsafe")
    return (np.abs(sums) > limit).reshape(*codes.shape[:-1], -1)


def project(u: NDArray[np.float32], run: int) -> NDArray[np.float32]:
    """The nearest real codes (..., K) whose pairs are safe; u within the 8-bit grid."""
    result = np.array(u, np.float32)
    pairs = paired(result, run)
    sums = pairs[..., :1] + pairs[..., 1:]  # numpy's sum along a short axis takes ten times as long
    pairs -= (sums - np.clip(sums, -LIMIT, LIMIT)) / 2
    return result


def repair(codes: NDArray[np.float32], u: NDArray[np.float32], run: int) -> NDArray[np.float32]:
    """Codes (..., K) with safe pairs: of an unsafe one, that goes a step back which was rounded away from 0 the most.

    Args:
        codes: whole numbers, at most two beyond the limit in a pair: what rounding makes of `project(u)`.
        u: (..., K) what they were rounded from.
    """
    pairs = paired(codes, run)
    sums = pairs[..., 0] + pairs[..., 1]
    unsafe = np.nonzero(np.abs(sums) > LIMIT)
    if not len(unsafe[0]):
        return codes
    sign = np.sign(sums[unsafe])
    away = (pairs[unsafe] - paired(u, run)[unsafe]) * sign[:, None]
    first, both = away.argmax(-1), np.abs(sums[unsafe]) > LIMIT + 1
    repaired = np.array(codes)
    for which, some in ((first, np.ones_like(both)), (1 - first, both)):
        at = (*(axis[some] for axis in unsafe), which[some])
        paired(repaired, run)[at] -= sign[some]
    return repaired
