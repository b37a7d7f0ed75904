"""What is seen of a layer's input: sums over sampled positions, and a few of the positions themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.activation_store import let_go
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import bias_rows, float_of, sides
from quark_onnx.engine.layers.row_grids import codes_of
from quark_onnx.graph import Model
from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.drawn_positions import Samples
from quark_onnx.numerics.layer.held_out_split import LayerData, held_out
from quark_onnx.numerics.layer.sampling import Layer, drawn_in_all, sample

Array = NDArray[Any]

KEPT = 3000
"""Positions of a layer that are kept to judge it through its activation function."""

PER_UNKNOWN = 20
"""Positions of a layer with groups for each input of one, where a quarter of what others get is fewer."""

ENOUGH = 4
"""Positions for each input of a layer from which on a rounding of 8 bits that is learned is better than the nearest."""

SINGLE = "it has a single output position in all samples: give more of them"
"""Why nothing can be learned where nothing varies: any weight fits, with a bias."""


def layer_data(
    model: Model, plan: Plan, unit: Unit, frontier: Frontier, options: FastFinetune, number: int, *, shared: bool
) -> tuple[LayerData | Skip, int]:
    """Statistics of the layer's input, and of how many samples.

    number: of the layer, for its random choices. shared: other layers read the weight, so each is seen without bias.
    """
    read = layer_samples(model, plan, unit, frontier, options, shared=shared)
    if isinstance(read, Skip):
        return read, 0
    layer, samples, positions = read
    count = len(samples.x)
    bits = plan.sites[unit.weight].format.bits
    learns = shared or learnable(options, bits, drawn_in_all(layer, samples, positions), layer.weight.shape[2])
    try:
        data = sample(
            layer,
            samples,
            held_out(count, options.holdout, options.seed),
            positions=positions,
            keep=0 if shared else min(KEPT, positions),
            drop_ratio=options.drop_ratio,
            seed=(options.seed, number),
            pool=frontier.pool,
            squares=learns,
        )
    except ValueError as error:  # not finite
        return Skip(str(error)), count
    return (data if data.train.sums.count.max() >= 2 else Skip(SINGLE)), count


def learnable(options: FastFinetune, bits: int, positions: int, inputs: int) -> bool:
    """Whether a rounding is looked for that is better than the nearest, for weights of so many bits."""
    return positions >= ENOUGH * inputs or not options.quick or options.steps(bits) > 0


def layer_samples(
    model: Model, plan: Plan, unit: Unit, frontier: Frontier, options: FastFinetune, *, shared: bool
) -> tuple[Layer, Samples, int] | Skip:
    """The float layer, what it reads in both models, and how many output positions to draw; or why it cannot be."""
    read = sides(unit, frontier, plan, options.data_size)
    if isinstance(read, Skip):
        return read
    scale, zero_point = 1.0, 0
    if (q := codes_of(plan, unit.node, unit.data)) is not None:
        scale, zero_point = float(q.scale), int(q.zero_point)
    weight = unit.geometry.rows(float_of(model, unit.weight))
    bias = np.zeros(weight.shape[:2], np.float32)
    if unit.bias is not None and not shared:
        bias = float_bias(model, unit, weight.shape)
    layer = Layer(weight, bias, read.shape, None if shared else _interval(unit.activation))
    return layer, Samples(read.x, read.z, scale, zero_point, let_go), most_positions(weight.shape, options.positions)


def most_positions(weight_shape: tuple[int, ...], positions: int) -> int:
    """How many output positions a layer (G, R, K) looks at, where one without groups looks at `positions`.

    Every group sees every position, and one of a depthwise layer has a handful of unknowns only.
    """
    groups, _, inputs = weight_shape
    return positions if groups == 1 else min(positions, max(positions // 4, PER_UNKNOWN * inputs))


def float_bias(model: Model, unit: Unit, shape: tuple[int, ...]) -> Array:
    """(G, R) of the float model, for a weight (G, R, K)."""
    assert unit.bias is not None
    return bias_rows(float_of(model, unit.bias), shape)


def summed(parts: Sequence[LayerData]) -> LayerData:
    """Of all layers that read one weight."""
    train, held = parts[0].train, parts[0].held
    for part in parts[1:]:
        train = train + part.train
        held = held + part.held if held is not None and part.held is not None else None
    return LayerData(train, held)


def _interval(activation: Activation) -> tuple[float, float] | None:
    """Where the activation lets errors through, a little wider: rounding may push a value in."""
    low, high = activation.active
    return activation.region(0.05 * (high - low) if math.isfinite(high - low) else 0.0)
