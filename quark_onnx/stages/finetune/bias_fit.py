"""Bias correction of one layer: its data, and the bias that it gets."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.row_grids import bias_grid, grid_of, rounded_rows
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.bias_shift import Errors, Shifted, shift
from quark_onnx.numerics.layer.held_out_split import held_out
from quark_onnx.numerics.layer.sampling import both_sides, stride_of
from quark_onnx.numerics.rounding.weight_grid import nearest
from quark_onnx.stages.finetune.layer_statistics import KEPT, SINGLE, float_bias, layer_samples

Array = NDArray[Any]


def fitted_bias(
    model: Model,
    plan: Plan,
    unit: Unit,
    frontier: Frontier,
    options: FastFinetune,
    gain: Array | None,
    number: int,
) -> Shifted | Skip:
    """The bias of a layer, or why it has none that can be fitted.

    gain: how much the network cares for each of the output's channels. number: of the layer, for its random choices.
    """
    if unit.bias is None or not unit.movable:
        return Skip("it has no bias of its own")
    read = layer_samples(model, plan, unit, frontier, options, shared=False)
    if isinstance(read, Skip):
        return read
    layer, samples, positions = read
    site, q = plan.sites[unit.weight], plan.qparams_of(unit.weight)
    grid = grid_of(q, site.format, layer.weight.shape[:2])
    codes = rounded_rows(plan, unit, q)
    if codes is None:
        codes = nearest(layer.weight, grid.scale, grid.low, grid.high, grid.safe_pairs)
    weight = codes * grid.scale[..., None]
    stride = stride_of(layer, samples, positions, min(KEPT, positions))
    train, held = both_sides(
        layer,
        samples,
        held_out(len(samples.x), options.holdout, options.seed),
        partial(Errors.of, layer, weight, stride=stride),
        positions=positions,
        drop_ratio=options.drop_ratio,
        seed=(options.seed, number),
        pool=frontier.pool,
    )
    if not all(side.finite for side in (train, held or train)):
        return Skip("the layer's input or output is not finite")
    if train.positions < 2:
        return Skip(SINGLE)
    own = bias_grid(plan, unit.bias)
    steps = None
    if unit.bias in plan.sites and own is None:
        steps = grid.scale.astype(np.float64) * float(plan.qparams_of(unit.data).scale)
    rows = None if gain is None or gain.size != grid.scale.size else gain.reshape(grid.scale.shape)
    return shift(float_bias(model, unit, layer.weight.shape), train, held, unit.activation, rows, steps=steps, grid=own)
