"""Products of 8-bit integers as x64 without VNNI adds them: two at a time in 16 bits, clipped.

    y = Σ over pairs of clip(x₀w₀ + x₁w₁, −32,768, 32,767)        x unsigned, w signed, 8 bits each

The pairs are those of `numerics.weight_pairs`. Only unsafe pairs are ever clipped, and they are few: the exact product
comes from BLAS, and what clipping takes away from those pairs is added to it. All of it is exact: sums of float32 stay
below 2²⁴, longer ones are of float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.weight_pairs import paired, unsafe_pairs

DEEP = 2**24 // (255 * 128)
"""Products whose sum float32 surely holds exactly."""

BLOCK = 1 << 22
"""Numbers of x that are looked at a time."""

Codes = NDArray[Any]


def saturating_product(unsigned: Codes, signed: Codes, run: int | None = None) -> NDArray[np.int64]:
    """(G, n, K) uint8 and (G, R, K) int8 → the sums (G, n, R) of a processor that adds pairs in 16 bits.

    run: columns inside which neighbours are pairs, as in `numerics.weight_pairs`; None: all of a row.
    """
    groups, n, k = unsigned.shape
    run = k if run is None else run
    unsafe, pairs = unsafe_pairs(signed, run), paired(np.arange(k), run).reshape(-1, 2)
    found = np.empty((groups, n, signed.shape[1]), np.int64)
    step = max(1, BLOCK // max(1, groups * k))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        found[:, rows] = exact_product(unsigned[:, rows], signed)
        found[:, rows] += _clipped_off(unsigned[:, rows], signed, unsafe, pairs)
    return found


def exact_product(unsigned: Codes, signed: Codes) -> NDArray[np.int64]:
    """The same without saturation."""
    kind: type[np.float32] | type[np.float64] = np.float32 if unsigned.shape[-1] <= DEEP else np.float64
    return product(unsigned.astype(kind), np.ascontiguousarray(signed.astype(kind).swapaxes(1, 2))).astype(np.int64)


def _clipped_off(
    unsigned: Codes, signed: Codes, unsafe: NDArray[np.bool_], pairs: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Σ clip(s) − s over the unsafe ones of the pairs (·, 2) of each row: (G, n, R)."""
    off = np.zeros((*unsigned.shape[:2], signed.shape[1]), np.int64)
    for group in np.flatnonzero(unsafe.any((1, 2))):
        x: NDArray[np.float32] = np.ascontiguousarray(unsigned[group].T).astype(np.float32)
        for row in np.flatnonzero(unsafe[group].any(-1)):
            one, other = pairs[unsafe[group, row]].T
            w: NDArray[np.float32] = signed[group, row].astype(np.float32)[:, None]
            sums = x[one] * w[one] + x[other] * w[other]
            off[group, :, row] = (np.clip(sums, -32768, 32767) - sums).sum(0, dtype=np.float64)
    return off
