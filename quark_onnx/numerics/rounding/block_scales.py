"""Scales of blocks of inputs: of the parts of the largest the best for each, then fitted to codes, and codes to them.

Both look at the error of the layer's output. The search takes inputs for uncorrelated, which makes the blocks of a row
independent; the fit does not: with c the codes of a block and half the gradient of the loss there, the block is best at

    s − c · half / c H cᵀ

while the others stay, so that going through them in turn never raises the loss. What a block changes is carried on to
the gradient of the others by one product, so that a round costs as much as one with the whole H.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.parallel_blocks import in_order, row_blocks
from quark_onnx.numerics.rounding.coordinate_descent import descend
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, nearest, up_or_down

F32 = NDArray[np.float32]


def search_blocks(
    weight: F32, grid: WeightGrid, importance: F32, factors: Sequence[float], pool: Executor | None = None
) -> F32:
    """(G, R, K) scales: those of the grid times the factor that costs least when the weight is rounded to nearest.

    Args:
        importance: (G, K) mean square of every input.
        pool: for blocks of rows, which are independent.
    """

    def search(part: slice) -> F32:
        return _searched(weight[:, part], grid.rows(part), importance, factors)

    return np.concatenate(list(in_order(search, row_blocks(weight.shape), pool)), 1)


def _searched(weight: F32, grid: WeightGrid, importance: F32, factors: Sequence[float]) -> F32:
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
def refined(codes: F32, q: Quadratic, grid: WeightGrid, rounds: int, *, fit: bool = True) -> tuple[F32, F32]:
    """Codes and scales (G, R, K) after so many rounds through the blocks: a scale is fitted, then a sweep of descent.

    A code stays, or becomes one of the two next to its weight. The loss does not rise.

    Args:
        codes: (G, R, K) at the scales of the grid.
        fit: False: scales stay.
    """
    assert grid.block is not None
    codes, scale = codes.copy(), np.array(grid.scale)
    low, high = (np.broadcast_to(bound, codes.shape) for bound in grid.bounds())
    half = product(codes * scale - q.origin, q.hessian) - q.residual
    for _ in range(rounds):
        for start in range(0, codes.shape[-1], grid.block):
            part = slice(start, start + grid.block)
            own, before, inner = codes[..., part], scale[..., start].copy(), half[..., part]
            hessian = np.ascontiguousarray(q.hessian[:, part, part])
            found = before
            if fit:
                bent = product(own, hessian)
                found = before - (own * inner).sum(-1) / (own * bent).sum(-1)
                found = np.where((found > 0) & np.isfinite(found), found, before).astype(np.float32)
                inner = inner + bent * (found - before)[..., None]
            down, up = up_or_down(q.origin[..., part], found, low[..., part], high[..., part])
            alone = Quadratic(own * found[..., None], hessian, -inner, q.floor)
            better = descend(own, np.minimum(down, own), np.maximum(up, own), found, alone, 1)
            half += product(better * found[..., None] - own * before[..., None], q.hessian[:, part])
            codes[..., part], scale[..., part] = better, found[..., None]
    return codes, scale


def _widened(by_block: NDArray[np.bool_], block: int, inputs: int) -> NDArray[np.bool_]:
    return np.repeat(by_block, block, -1)[..., :inputs]
