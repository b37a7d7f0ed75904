"""Normalizations: over the last axes, over the places of a channel or of a group, by root mean square; and
BatchNormalization with given moments.

With x̂ = (x − mean)/σ, and g what comes back to x̂:  dx = (g − mean(g) − x̂·mean(g·x̂))/σ
"""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.broadcasting import unbroadcast
from quark_onnx.graph.gradient.step import Gradients, Step, known_shape, rank_of


def layer(step: Step) -> Gradients:
    """LayerNormalization."""
    rank = rank_of(step.x)
    axes = list(range(step.integer("axis", -1) % rank, rank))
    inverse = step.output(2)
    unit = step.op("Mul", step.op("Sub", step.x, step.output(1)), inverse)
    found = {}
    if step.wants(1):
        found[1] = unbroadcast(step, step.op("Mul", step.dy, unit), step.input(1))
    if step.wants(2):
        found[2] = unbroadcast(step, step.dy, step.input(2))
    if step.wants(0):
        found[0] = _back(step, step.op("Mul", step.dy, step.input(1)), unit, inverse, axes)
    return found


def root_mean_square(step: Step) -> Gradients:
    """RMSNormalization: as above, with nothing taken off."""
    rank = rank_of(step.x)
    axes = list(range(step.integer("axis", -1) % rank, rank))
    inverse = _inverse(step, step.x, axes, 1e-5)
    unit = step.op("Mul", step.x, inverse)
    found = {}
    if step.wants(1):
        found[1] = unbroadcast(step, step.op("Mul", step.dy, unit), step.input(1))
    if step.wants(0):
        found[0] = _back(step, step.op("Mul", step.dy, step.input(1)), unit, inverse, axes, centred=False)
    return found


def instance(step: Step) -> Gradients:
    """InstanceNormalization: each channel of each sample."""
    rank = rank_of(step.x)
    axes = list(range(2, rank))
    centred = step.op("Sub", step.x, step.mean(step.x, axes))
    inverse = _inverse(step, centred, axes, 1e-5)
    unit = step.op("Mul", centred, inverse)
    found = _by_channel(step, unit, rank)
    if step.wants(0):
        scale = step.with_shape(step.input(1), [-1] + [1] * (rank - 2))
        found[0] = _back(step, step.op("Mul", step.dy, scale), unit, inverse, axes)
    return found


def group(step: Step) -> Gradients | Skip:
    """GroupNormalization with a scale for each channel: a group is a row."""
    rank, dims = rank_of(step.x), known_shape(step.input(1))
    if isinstance(dims, Skip):
        return dims
    groups = step.integer("num_groups", 1)
    if dims[0] % groups or step.opset < 21:
        return Skip("it has a scale for each group")
    rows = step.with_shape(step.x, [0, groups, -1])
    centred = step.op("Sub", rows, step.mean(rows, [2]))
    inverse = _inverse(step, centred, [2], 1e-5)
    unit = step.op("Mul", centred, inverse)
    found = _by_channel(step, step.reshaped(unit, step.x), rank)
    if step.wants(0):
        scale = step.with_shape(step.input(1), [-1] + [1] * (rank - 2))
        back = step.with_shape(step.op("Mul", step.dy, scale), [0, groups, -1])
        found[0] = step.reshaped(_back(step, back, unit, inverse, [2]), step.x)
    return found


def batch(step: Step) -> Gradients | Skip:
    """BatchNormalization whose moments are inputs."""
    rank = rank_of(step.x)
    if step.integer("training_mode", 0):
        return Skip("it takes the moments of its batch")
    scale, mean, variance = (step.input(index) for index in (1, 3, 4))
    column = [-1] + [1] * (rank - 2)
    deviation = step.op("Sqrt", step.op("Add", variance, step.floats(step.number("epsilon", 1e-5))))
    factor = step.op("Div", scale, deviation)
    found = {}
    if step.wants(0):
        found[0] = step.op("Mul", step.dy, step.with_shape(factor, column))
    axes = [0, *range(2, rank)]
    if step.wants(2) or step.wants(3):
        found[2] = step.sum(step.dy, axes, keepdims=False)
        found[3] = step.op("Neg", step.op("Mul", found[2], factor))
    if step.wants(1) or step.wants(4):
        centred = step.op("Sub", step.x, step.with_shape(mean, column))
        total = step.sum(step.op("Mul", step.dy, centred), axes, keepdims=False)
        found[1] = step.op("Div", total, deviation)
        slope = step.scaled(step.op("Div", factor, step.op("Mul", deviation, deviation)), -0.5)
        found[4] = step.op("Mul", total, slope)
    return found


def _inverse(step: Step, centred: ir.Value, axes: list[int], default: float) -> ir.Value:
    """One over the deviation."""
    variance = step.mean(step.op("Mul", centred, centred), axes)
    with_floor = step.op("Add", variance, step.floats(step.number("epsilon", default)))
    return step.op("Reciprocal", step.op("Sqrt", with_floor))


def _by_channel(step: Step, unit: ir.Value, rank: int) -> dict[int, ir.Value]:
    """By scale and bias, which have a number for each channel."""
    axes, found = [0, *range(2, rank)], {}
    if step.wants(1):
        found[1] = step.sum(step.op("Mul", step.dy, unit), axes, keepdims=False)
    if step.wants(2):
        found[2] = step.sum(step.dy, axes, keepdims=False)
    return found


def _back(
    step: Step, gradient: ir.Value, unit: ir.Value, inverse: ir.Value, axes: list[int], centred: bool = True
) -> ir.Value:
    along = step.mean(step.op("Mul", gradient, unit), axes)
    rest = step.op("Sub", gradient, step.op("Mul", unit, along))
    if centred:
        rest = step.op("Sub", rest, step.mean(gradient, axes))
    return step.op("Mul", rest, inverse)
