"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): round one column after the other, each making up for those before it.

With H = U D Uᵀ, U upper triangular with ones on its diagonal, and g = e U for the errors e = ŵ − origin of a row,

    loss = Σⱼ Dⱼ gⱼ² − 2 gⱼ ρⱼ + floor,   U ρ = residual,   so that   eⱼ = ρⱼ / Dⱼ − Σ_{i<j} eᵢ Uᵢⱼ

is the best error of column j when those before it are rounded already and those behind it are free (Chee et al. 2023,
arXiv 2307.13304, theorem 6). It differs from the paper in the choice of codes, which may be limited to the two next to
each weight, and in that no inverse is made. Columns that cost most come first, as in the authors' `act-order`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.weight_grid import each

F32 = NDArray[np.float32]

COLUMNS = 128
"""Columns between two products with the whole of U."""

DIRECT, STRIP = 2048, 512
"""Inputs up to which numpy factors H at once, for which it takes six times its memory; columns that are one by one."""

RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Parts of the mean of diag H that are added to it one after the other, until it is positive definite in float32."""


class Factor(NamedTuple):
    """U (G, K, K) and D (G, K) of the columns in the order (G, K) in which they are rounded."""

    order: NDArray[np.intp]
    upper: F32
    diagonal: F32


def factored(q: Quadratic, act_order: bool = True) -> Factor | None:
    """H in parts, those columns first that cost most, or as they come; None where it is not finite.

    Cholesky's factor is that of H turned by half a circle, turned back.
    """
    order = np.argsort(-q.importance if act_order else 0 * q.importance, axis=-1, kind="stable")
    group, at = np.arange(len(order))[:, None, None], order[:, ::-1]
    for tried in range(len(RIDGES)):
        turned = q.hessian[group, at[:, :, None], at[:, None]]
        diagonal = np.einsum("gkk->gk", turned)  # a view
        mean = diagonal.mean(-1, keepdims=True)
        if not np.isfinite(mean).all():
            return None
        for ridge in RIDGES[: tried + 1]:
            diagonal += np.float32(ridge) * mean
        try:
            root = _root(turned)
        except np.linalg.LinAlgError:
            continue
        _turn(root)
        ends = np.array(np.einsum("gkk->gk", root))
        root /= ends[:, None]
        return Factor(order, root, np.square(ends))
    return None


def _root(matrix: F32) -> F32:
    """The lower factor by Cholesky, which is used up; a large one is factored in place, strip after strip."""
    size = matrix.shape[-1]
    if size <= DIRECT:
        return np.asarray(np.linalg.cholesky(matrix))
    for start in range(0, size, STRIP):
        stop = min(start + STRIP, size)
        strip, above = matrix[:, start:, start:stop], matrix[:, start:stop, :start]
        strip -= product(matrix[:, start:, :start], np.swapaxes(above, 1, 2))
        corner, below = np.linalg.cholesky(strip[:, : stop - start]), strip[:, stop - start :]
        strip[:, : stop - start] = corner
        below[...] = np.swapaxes(np.linalg.solve(corner, np.swapaxes(below, 1, 2)), 1, 2)
        matrix[:, start:stop, stop:] = 0
    return matrix


def _turn(matrix: F32) -> None:
    """By half a circle, in place."""
    for row in range(-(-matrix.shape[-1] // 2)):
        first = matrix[:, row, ::-1].copy()
        matrix[:, row] = matrix[:, -1 - row, ::-1]
        matrix[:, -1 - row] = first


def gptq(low: F32, high: F32, scale: F32, q: Quadratic, factor: Factor | None) -> F32:
    """Codes (G, R, K) within low and high, (G, R, K); scale (G, R), or (G, R, K) with blocks; factor of `factored`.

    Where H cannot be made positive definite, as it is not finite, codes next to the origin.
    """
    if factor is None:
        return np.asarray(np.clip(np.rint(q.origin / each(scale)), low, high))
    order, upper, diagonal = factor
    columns = order[:, None]
    worth = np.broadcast_to(each(scale), q.origin.shape)
    given = (np.take_along_axis(a, columns, 2) for a in (q.origin, low, high, q.residual, worth))
    origin, low, high, residual, worth = given
    wanted = _solved(upper, residual) / diagonal[:, None]
    error, codes = np.empty_like(origin), np.empty_like(origin)
    for part in _blocks(origin.shape[-1]):
        inner = np.ascontiguousarray(upper[:, part, part])
        target = origin[..., part] + wanted[..., part] - product(error[..., : part.start], upper[:, : part.start, part])
        inside = (target, *(a[..., part] for a in (origin, low, high, worth)))
        target, own, least, most, s = (np.ascontiguousarray(a.transpose(2, 0, 1)) for a in inside)
        for j, column in enumerate(range(part.start, part.stop)):
            code = np.clip(np.rint(target[j] / s[j]), least[j], most[j])
            codes[..., column] = code
            off = code * s[j] - own[j]
            error[..., column] = off
            target[j + 1 :] -= inner[:, j, j + 1 :].T[..., None] * off
    back = np.argsort(order, axis=-1)[:, None]
    return np.ascontiguousarray(np.take_along_axis(codes, back, 2))


def _solved(upper: F32, residual: F32) -> F32:
    """ρ (G, R, K) with U ρ = residual for every row, from the last block of columns to the first."""
    rho = np.array(residual)
    for part in reversed(_blocks(residual.shape[-1])):
        rest = slice(part.stop, None)
        rho[..., part] -= product(rho[..., rest], np.swapaxes(upper[:, part, rest], 1, 2))
        rho[..., part] = np.swapaxes(np.linalg.solve(upper[:, part, part], np.swapaxes(rho[..., part], 1, 2)), 1, 2)
    return rho


def _blocks(length: int) -> list[slice]:
    return [slice(start, min(start + COLUMNS, length)) for start in range(0, length, COLUMNS)]
