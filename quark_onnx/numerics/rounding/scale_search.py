"""The scale of a weight by the output error of its layer: of some parts of the largest, the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.rounding.coordinate_descent import descend
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.weight_grid import Bound, nearest, up_or_down

F32 = NDArray[np.float32]

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.13, 0.09, 0.06, 0.04, 0.025)
"""Scales to try, as parts of the largest. The low end is for tensors with a row that is huge and matters to nobody."""

FINE = tuple(round(1 - 0.5 * i / 13, 4) for i in range(14))
"""The same for a scale per channel, where no row has to suffer for another one."""

POWERS = (1.0, 0.5, 0.25, 0.125)
"""The same for scales that are powers of two, and have to stay so."""

BUDGET = 2**22
"""Weights of all candidates that are descended at once."""


def search_scale(
    weight: F32,
    judge: Callable[[F32], F32],
    low: Bound,
    high: Bound,
    top: F32,
    shared: tuple[int, ...],
    *,
    factors: Sequence[float] = FACTORS,
    descends: Quadratic | None = None,
    gain: F32 | None = None,
    floor: F32 | None = None,
    safe_run: int = 0,
) -> F32:
    """(G, R) scales: `top` times the factor whose rounded weight gives the least output error.

    judge: weight → loss of every row. descends: codes take a sweep of descent on it, because that is what tuning
    will do; None: it will not. gain (G, R): how much the network cares for a row, where rows share a scale.
    floor (G, R): no scale may be smaller.
    """
    scales = [np.maximum(top * np.float32(f), 0 if floor is None else floor) for f in factors]
    per = max(1, BUDGET // weight.size)
    parts = [_rounded(weight, scales[i : i + per], low, high, descends, safe_run) for i in range(0, len(scales), per)]
    losses = np.stack([judge(w) for part in parts for w in part])
    if shared:
        weighed = losses * (1 if gain is None else gain)
        losses = np.broadcast_to(weighed.sum(tuple(axis + 1 for axis in shared), keepdims=True), losses.shape)
    return np.asarray(np.take_along_axis(np.stack(scales), losses.argmin(0)[None], 0)[0])


def _rounded(
    weight: F32, scales: list[F32], low: Bound, high: Bound, descends: Quadratic | None, safe_run: int
) -> list[F32]:
    """The rounded weight for every scale: candidates are rows of one tall layer, so the descent's loop runs once."""
    count, rows = len(scales), weight.shape[1]
    scale, tall = np.concatenate(scales, 1), np.tile(weight, (1, count, 1))
    low, high = (np.tile(b, (1, count, 1)) if np.ndim(b) == 3 and np.shape(b)[1] > 1 else b for b in (low, high))
    codes = nearest(tall, scale, low, high, safe_run)
    if descends is not None:
        same = descends.take(np.tile(np.arange(rows), count))
        codes = descend(codes, *up_or_down(tall, scale, low, high, safe_run), scale, same, 1, safe_run)
    return np.split(codes * scale[..., None], count, 1)
