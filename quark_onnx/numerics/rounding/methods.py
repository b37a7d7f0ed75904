"""The codes of a layer: by the method that is asked for, in blocks of rows, then polished."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.parallel_blocks import in_order, row_blocks
from quark_onnx.numerics.rounding.adaquant import adaquant
from quark_onnx.numerics.rounding.adaround import adaround
from quark_onnx.numerics.rounding.coordinate_descent import polish
from quark_onnx.numerics.rounding.early_stop import Rounded
from quark_onnx.numerics.rounding.objectives import Objective, Quadratic, Sampled
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, nearest, up_or_down

F32 = NDArray[np.float32]

WIDE = 1536
"""Inputs above which an iteration on K×K moments costs several times one on a mini-batch of positions."""


def round_rows(
    weight: F32,
    scale: F32,
    q: Quadratic,
    sampled: Sampled | None,
    grid: WeightGrid,
    settings: TuningSettings,
    pool: Executor | None,
) -> tuple[F32, int]:
    """Codes by the method that is asked for, polished; in no row worse than rounding to nearest. And the iterations."""
    wide = weight.shape[2] > WIDE
    objective: Objective = sampled if sampled is not None and (wide or settings.objective == "sampled") else q
    low, high = (np.broadcast_to(np.asarray(b, np.float32), (*scale.shape, 1)) for b in (grid.low, grid.high))
    codes, iterations = nearest(weight, scale, low, high, grid.safe_pairs), 0
    if settings.method not in ("nearest", *METHODS):
        raise ValueError(f"unknown method {settings.method!r}; known are nearest, {', '.join(METHODS)}")
    cost = scale**2 * q.curvature
    if settings.method != "nearest" and cost.max() > 0:  # else no input varies, and every rounding is as good
        unit = np.maximum(cost, max(1e-8 * float(cost.max()), 1e-30))  # dead rows must not divide by zero

        def solve(part: slice) -> Rounded:
            rows = (a[:, part] for a in (weight, scale, low, high, unit))
            return METHODS[settings.method](settings, grid.safe_pairs, objective.rows(part), *rows)

        blocks = list(in_order(solve, row_blocks(weight.shape), pool))
        codes, iterations = np.concatenate([block.codes for block in blocks], 1), max(b.iterations for b in blocks)
    if settings.polish:
        close = up_or_down(weight, scale, low, high, grid.safe_pairs)
        bounds = (low, high) if settings.method == "adaquant" else close
        polished = polish(codes, *bounds, scale, q, settings.polish, pool, grid.safe_pairs)
        worse = objective.loss(polished * scale[..., None]) > objective.loss(codes * scale[..., None])
        codes = np.where(worse[..., None], codes, polished)
    return codes, iterations


def _adaround(
    r: TuningSettings, safe: bool, objective: Objective, weight: F32, scale: F32, low: F32, high: F32, unit: F32
) -> Rounded:
    return adaround(
        weight, scale, objective, low, high, unit, safe_pairs=safe,
        num_iterations=r.num_iterations, learning_rate=r.learning_rate, early_stop=r.early_stop, window=r.window,
        reg_param=r.reg_param, beta_range=r.beta_range, warm_start=r.warm_start,
    )  # fmt: skip


def _adaquant(
    r: TuningSettings, safe: bool, objective: Objective, weight: F32, scale: F32, low: F32, high: F32, unit: F32
) -> Rounded:
    return adaquant(
        weight, None, scale, objective, low, high, unit, safe_pairs=safe,
        num_iterations=r.num_iterations, learning_rate=r.learning_rate, early_stop=r.early_stop, window=r.window,
    )  # fmt: skip


METHODS = {"adaround": _adaround, "adaquant": _adaquant}
"""How the rounding is learned, by `TuningSettings.method`; "nearest" learns nothing."""
