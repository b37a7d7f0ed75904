"""The weight grid: codes, scales by output error, coordinate descent on a quadratic.

Weights (G, R, K), scales (G, R), codes as float32 whole numbers of w/s (the zero point is 0, or taken off the bounds).
Bounds low, high: numbers, or arrays that broadcast to (G, R, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.objectives import Quadratic
from quark_onnx.numerics.products import product

F32 = NDArray[np.float32]
Bound = float | F32

PER_CHANNEL: tuple[int, ...] = ()
PER_TENSOR: tuple[int, ...] = (0, 1)
PER_ROW: tuple[int, ...] = (0,)
"""Axes of (G, R) that share one scale. PER_ROW: per-channel weights of a grouped ConvTranspose, (C, R, …)."""

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.13, 0.09, 0.06, 0.04, 0.025)
"""Scales to try, as parts of the largest. The low end is for tensors with a row that is huge and matters to nobody."""

FINE = tuple(round(1 - 0.5 * i / 13, 4) for i in range(14))
"""The same for a scale per channel, where no row has to suffer for another one."""

POWERS = (1.0, 0.5, 0.25, 0.125)
"""The same for scales that are powers of two, and have to stay so."""

SETTLED = 1e-4
"""Descent ends when a sweep moves less than this part of the codes."""

COLUMNS = 32
"""Columns between two products with the whole H."""

BUDGET = 2**22
"""Weights of all candidates that are descended at once."""


def nearest(weight: F32, scale: F32, low: Bound, high: Bound) -> F32:
    """Codes by rounding half to even."""
    return clip(np.rint(weight / scale[..., None]), low, high)


def clip(codes: F32, low: Bound, high: Bound) -> F32:
    """Codes within the bounds, float32."""
    return np.asarray(np.clip(codes, low, high), np.float32)


def up_or_down(weight: F32, scale: F32, low: Bound, high: Bound) -> tuple[F32, F32]:
    """The two codes next to each weight, within the bounds."""
    down = np.floor(weight / scale[..., None])
    return clip(down, low, high), clip(down + 1, low, high)


def search_scale(
    weight: F32,
    q: Quadratic,
    low: Bound,
    high: Bound,
    top: F32,
    shared: tuple[int, ...],
    *,
    factors: Sequence[float] = FACTORS,
    sweeps: int = 1,
    judge: Callable[[F32], F32] | None = None,
    gain: F32 | None = None,
    floor: F32 | None = None,
) -> F32:
    """(G, R) scales: `top` times the factor whose rounded weight gives the least output error.

    sweeps of descent after rounding, because that is what tuning will do; 0 when it will not. judge: weight →
    loss of every row, default q. gain (G, R): how much the network cares for a row, where rows share a scale.
    floor (G, R): no scale may be smaller.
    """
    scales = [np.maximum(top * np.float32(f), 0 if floor is None else floor) for f in factors]
    per = max(1, BUDGET // weight.size)
    parts = [_rounded(weight, scales[i : i + per], q, low, high, sweeps) for i in range(0, len(scales), per)]
    losses = np.stack([judge(w) if judge else q.loss(w) for part in parts for w in part])
    if shared:
        weighed = losses * (1 if gain is None else gain)
        losses = np.broadcast_to(weighed.sum(tuple(axis + 1 for axis in shared), keepdims=True), losses.shape)
    return np.asarray(np.take_along_axis(np.stack(scales), losses.argmin(0)[None], 0)[0])


def _rounded(weight: F32, scales: list[F32], q: Quadratic, low: Bound, high: Bound, sweeps: int) -> list[F32]:
    """The rounded weight for every scale: candidates are rows of one tall layer, so the descent's loop runs once."""
    count, rows = len(scales), weight.shape[1]
    scale, tall = np.concatenate(scales, 1), np.tile(weight, (1, count, 1))
    low, high = (np.tile(b, (1, count, 1)) if np.ndim(b) == 3 and np.shape(b)[1] > 1 else b for b in (low, high))
    codes = nearest(tall, scale, low, high)
    if sweeps:
        same = q.take(np.tile(np.arange(rows), count))
        codes = descend(codes, *up_or_down(tall, scale, low, high), scale, same, sweeps)
    return np.split(codes * scale[..., None], count, 1)


def descend(codes: F32, low: Bound, high: Bound, scale: F32, q: Quadratic, sweeps: int) -> F32:
    """Codes after coordinate descent: each column in turn set to its best code in [low, high], all rows at once.

    low, high: as in the module, or (G, R, K). The loss does not rise. Inside a block of columns the gradient is kept
    by rank-one updates, outside by one product (as GPTQ does, Frantar et al. 2022, arXiv 2210.17323, §3.3).
    """
    codes = codes.copy()
    bounds = [np.broadcast_to(np.asarray(bound, np.float32), codes.shape) for bound in (low, high)]
    half = product(codes * scale[..., None] - q.origin, q.hessian) - q.residual  # half the gradient
    for _ in range(sweeps):
        moved = 0.0
        for start in range(0, codes.shape[-1], COLUMNS):
            part = slice(start, start + COLUMNS)
            step = _descend_block(half[..., part], codes[..., part], bounds, scale, q.hessian[:, part, part], part)
            changed = float(np.abs(step).sum())
            if changed:
                moved += changed
                codes[..., part] += step
                half += product(step * scale[..., None], q.hessian[:, part])
        if moved <= SETTLED * codes.size:
            break
    return codes


def _descend_block(half: F32, codes: F32, bounds: list[F32], scale: F32, hessian: F32, part: slice) -> F32:
    """(G, R, columns) steps of the codes. Inside, columns come first, so that each is one piece of memory."""
    g, c, low, high = (
        np.ascontiguousarray(a.transpose(2, 0, 1)) for a in (half, codes, *(bound[..., part] for bound in bounds))
    )
    h = np.ascontiguousarray(hessian.transpose(2, 1, 0)[..., None])  # (j, i, G, 1)
    step = np.empty_like(c)
    for j in range(len(c)):
        best = np.rint(c[j] - g[j] / (h[j, j] * scale))
        np.maximum(best, low[j], out=best)
        np.minimum(best, high[j], out=best)
        np.subtract(best, c[j], out=step[j])
        g[j + 1 :] += h[j, j + 1 :] * (step[j] * scale)
    return np.ascontiguousarray(step.transpose(1, 2, 0))
