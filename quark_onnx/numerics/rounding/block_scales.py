"""Scales of blocks of inputs: of the parts of the largest the best for each, and then all for codes that are given.

Both look at the error of the layer's output. The search takes inputs for uncorrelated, which makes the blocks of a row
independent; the fit does not: with c the codes of a block and half the gradient of the loss there, the block is best at

    s − c · half / c H cᵀ

while the others stay, so that going through them in turn never raises the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, nearest

F32 = NDArray[np.float32]


def search_blocks(weight: F32, grid: WeightGrid, importance: F32, factors: Sequence[float]) -> F32:
    """(G, R, K) scales: those of the grid times the factor that costs least when the weight is rounded to nearest.

    importance (G, K): mean square of every input.
    """
    assert grid.block is not None
    starts = np.arange(0, weight.shape[-1], grid.block)
    best, least = grid.scale, np.full((*weight.shape[:2], len(starts)), np.inf, np.float32)
    for factor in factors:
        scale = grid.scale * np.float32(factor)
        error = nearest(weight, scale, grid.low, grid.high) * scale - weight
        error *= error
        error *= importance[:, None]
        cost = np.add.reduceat(error, starts, axis=-1)
        better = _widened(cost < least, grid.block, weight.shape[-1])
        best, least = np.where(better, scale, best), np.minimum(cost, least)
    return best


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # what is not finite is not taken
def fitted_blocks(codes: F32, scale: F32, q: Quadratic, block: int) -> F32:
    """(G, R, K) scales for codes (G, R, K); a block's stays where none is better than 0 or a number."""
    fitted = scale.copy()
    half = product(codes * scale - q.origin, q.hessian) - q.residual
    for start in range(0, codes.shape[-1], block):
        part = slice(start, start + block)
        own = codes[..., part]
        bent = product(own, q.hessian[:, part])
        before = scale[..., start]
        found = before - (own * half[..., part]).sum(-1) / (own * bent[..., part]).sum(-1)
        found = np.where((found > 0) & np.isfinite(found), found, before).astype(np.float32)
        fitted[..., part] = found[..., None]
        half += bent * (found - before)[..., None]
    return fitted


def _widened(by_block: NDArray[np.bool_], block: int, inputs: int) -> NDArray[np.bool_]:
    return np.repeat(by_block, block, -1)[..., :inputs]
