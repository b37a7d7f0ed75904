"""Tune the weight and bias of one layer: scale by output error, rounding by AdaRound or AdaQuant, bias in closed form.

All is learned on the training samples. What the layer becomes is chosen among four candidates by the error of its
output on the held-out samples:
    raw      the plan's scale and codes, the bias as it was: what the layer is without tuning
    untuned  the plan's scale and codes, fitted bias
    nearest  searched scale, rounding to nearest, fitted bias
    tuned    searched scale, the rounding that was learned or found, fitted bias
The rounding of few samples fits their noise; then a simpler candidate wins.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.candidates import Candidate, Scorer
from quark_onnx.numerics.layer.held_out_split import LayerData
from quark_onnx.numerics.layer.integer_bias import OwnGrid
from quark_onnx.numerics.rounding.block_scales import search_blocks
from quark_onnx.numerics.rounding.methods import Rounding
from quark_onnx.numerics.rounding.moments import Moments
from quark_onnx.numerics.rounding.objectives import Quadratic, Sampled
from quark_onnx.numerics.rounding.scale_search import search_scale
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, each, nearest

F32 = NDArray[np.float32]

ROOM = 2.0**28
"""Bias code of the float bias at the smallest weight scale: the limit is 4 times it, for the fitted bias to grow."""

WIDE = 2**30
"""G · R · K² from which scales are judged by rounding to nearest: a sweep of descent for each would take seconds."""

IDENTITY = Activation()


class Tuned(NamedTuple):
    """codes (G, R, K) whole float32, scale as in the grid, bias (G, R), or None as it came.

    loss, held  Σ over rows of gain · mean (f(ŷ) − f(y))² on the training and held-out samples, of `raw` and of this
    choice      the candidate that this is; accepted: it is not `raw`
    signal      Σ over rows of gain · mean f(y)² on the held-out samples
    """

    codes: F32
    scale: F32
    bias: F32 | None
    loss_before: float
    loss_after: float
    held_before: float
    held_after: float
    accepted: bool
    iterations: int
    choice: str
    signal: float


@np.errstate(over="ignore", invalid="ignore")  # where losses are not finite nothing changes
def tune(
    weight: F32,
    bias: F32 | None,
    data: LayerData,
    grid: WeightGrid,
    settings: TuningSettings,
    *,
    codes: F32 | None = None,
    activation: Activation = IDENTITY,
    gain: F32 | None = None,
    input_scale: float | None = None,
    bias_grid: OwnGrid | None = None,
    pool: Executor | None = None,
) -> Tuned:
    """The best candidate for a layer; never one that is worse than `raw` on the held-out samples.

    Args:
        weight: (G, R, K) float.
        bias: (G, R), or None where the layer has none and can have none; zeros where one can be added.
        data: of this layer, see `sampling.sample`; without squares no rounding is learned.
        codes: (G, R, K) that the plan has at the grid's scale; None: rounded to nearest.
        gain: (G, R) how much the network cares for each row, see `channel_importance`; None: the same for all.
        input_scale: of the input's quantizer if the bias will be int32 at input · weight scale.
        bias_grid: of the bias if it has 8 or 16 bits; with neither of these two it stays float.
        pool: for blocks of rows; the result does not depend on it.

    Raises:
        ValueError: data of which nothing was kept with objective "sampled" or without squares, or a method that
            there is not.
    """
    start = np.zeros(weight.shape[:2], np.float32) if bias is None else bias
    start = start if bias_grid is None else bias_grid.nearest(start)
    fixed = None if settings.update_bias and bias is not None else start
    scorer = Scorer.of(data, activation, gain, input_scale, bias_grid)
    near = partial(_near, weight, grid, codes)
    raw = Candidate("raw", near(grid.scale), grid.scale, start)

    sums = data.train.sums
    q = Quadratic.around(weight, sums, settings.ridge, fixed) if isinstance(sums, Moments) else None
    sampled = _sampled(data, fixed, activation, settings)
    scale, floor = grid.scale, _floor(start, input_scale, grid.shared)
    if settings.scale_search:
        grid = grid if input_scale is None else grid.at(np.maximum(grid.scale, floor))
        scale = _scale(weight, q, sampled, grid, settings, scorer.gain, floor, pool)
    rounded, iterations = [("untuned", near(grid.scale), grid.scale), ("nearest", near(scale), scale)], 0
    if settings.method != "nearest" and q is not None:
        rate = _rate(settings, float(scale.mean()), float(scorer.losses(data.train, raw).mean()))
        how = replace(settings, learning_rate=rate)
        codes, fitted, iterations = Rounding(weight, q, sampled, grid.at(scale), how, scorer.gain, floor, pool).found()
        rounded.append(("tuned", codes, fitted))
    fitter = data.train.fitter
    others = (Candidate(*r, fixed) if fixed is not None else scorer.with_bias(*r, fitter) for r in rounded)
    # min takes the first of equals: a tie changes nothing
    best = min((raw, *others), key=lambda candidate: scorer.score(scorer.held, candidate))
    if fixed is None and best is not raw:
        best = scorer.refitted(best)
    return _outcome(scorer, raw, best, iterations, bias is None)


def _near(weight: F32, grid: WeightGrid, codes: F32 | None, scale: F32) -> F32:
    """Rounded to nearest; rows at the grid's own scale as the plan has them."""
    found = nearest(weight, scale, grid.low, grid.high, grid.safe_run)
    return found if codes is None else np.where(each(scale == grid.scale), codes, found)


def _outcome(scorer: Scorer, raw: Candidate, best: Candidate, iterations: int, unbiased: bool) -> Tuned:
    return Tuned(
        best.codes,
        best.scale,
        None if unbiased else best.bias,
        scorer.score(scorer.data.train, raw),
        scorer.score(scorer.data.train, best),
        scorer.score(scorer.held, raw),
        scorer.score(scorer.held, best),
        best is not raw,
        iterations,
        best.name,
        scorer.signal(),
    )


def _floor(bias: F32, input_scale: float | None, shared: tuple[int, ...]) -> F32:
    """(G, R) smallest weight scale with room for the bias in int32: |b| / (sx · 2²⁸)."""
    if input_scale is None:
        return np.zeros_like(bias)
    least = (np.abs(bias) / (input_scale * ROOM)).astype(np.float32)
    return np.broadcast_to(least.max(shared, keepdims=True), least.shape) if shared else least


def _sampled(data: LayerData, fixed: F32 | None, activation: Activation, settings: TuningSettings) -> Sampled | None:
    """The kept training positions in random order; None when there are none."""
    if data.train.kept is None:
        if settings.objective == "sampled" or not isinstance(data.train.sums, Moments):
            raise ValueError('objective "sampled", or no squares, needs kept positions: sample the layer with keep > 0')
        return None
    offset, lever = data.train.fitter.means() if fixed is None else (fixed, None)
    batch = settings.batch if settings.objective == "sampled" else min(settings.batch, 128)
    return Sampled(*data.train.kept, offset, lever, activation, batch, settings.seed).shuffled()


def _scale(
    weight: F32,
    q: Quadratic | None,
    sampled: Sampled | None,
    grid: WeightGrid,
    settings: TuningSettings,
    gain: F32,
    floor: F32,
    pool: Executor | None,
) -> F32:
    half = None if sampled is None else replace(sampled, y=sampled.y[:, ::2], z=sampled.z[:, ::2])
    judged = half or q
    assert judged is not None  # without squares, positions are kept
    if grid.block is not None:
        return search_blocks(weight, grid, judged.importance, settings.factors, pool)
    plain = settings.method == "nearest" or weight.size * weight.shape[-1] > WIDE
    return search_scale(
        weight, judged.loss, grid.low, grid.high, grid.scale, grid.shared,
        factors=settings.factors, descends=None if plain else q, gain=gain, floor=floor, safe_run=grid.safe_run,
    )  # fmt: skip


def _rate(settings: TuningSettings, scale: float, loss: float) -> float:
    """The learning rate for a layer whose mean squared output error is `loss` without tuning."""
    rate = settings.learning_rate
    if settings.lr_adjust is not None and loss > settings.lr_adjust[0]:
        rate = settings.lr_adjust[1]
    return rate / scale if settings.absolute else rate
