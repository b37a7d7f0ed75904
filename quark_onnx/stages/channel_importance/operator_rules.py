"""What the gain of an output says about the inputs, one rule per kind of operator.

A rule returns a share for every input it understands; inputs without a share are not understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import LAYERS
from quark_onnx.graph import Node, Value
from quark_onnx.graph.channels import RESHAPES, Kernel, kernel, reduces_positions_only, regrouped
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, rank, shape
from quark_onnx.numerics.channel_importance import energies, through
from quark_onnx.stages.channel_importance.channel_gains import ALIKE, Gain, gain_of

# fmt: off
POINTWISE = (
    "Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Mish", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh",
)
# fmt: on
"""One value in, one value out: the gain passes, whatever the slope."""

SPATIAL = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean", "Resize")
"""They mix positions, and leave channels where they are if input and output have the same number of them."""

PAIRS = ("Add", "Sub", "Sum", "Mul", "Div", "Max", "Min")
"""Elementwise, of several inputs that broadcast."""

Shares = Mapping[int, Gain | None]
"""By number of the input."""


def _layer(node: Node, gain: Gain | None) -> Shares:
    found = kernel(node)
    ndim = rank(node.inputs[0])
    if isinstance(found, Kernel):
        weight, axis = found.blocks(_numbers(found.value)), 1
    elif is_op(node, "MatMul") and is_constant(node.inputs[1]) and rank(node.inputs[1]) == 2 and ndim:
        weight, axis = _numbers(node.inputs[1]).T[None, :, :, None], ndim - 1
    else:
        return {}
    energy = energies(weight.reshape(*weight.shape[:2], -1), weight.shape[2])
    behind = gain if gain is not None and gain.values.size == len(energy) else ALIKE
    rows = np.broadcast_to(behind.values, len(energy))
    return {0: gain_of(through(energy, rows), 0.0 if gain is None else gain.log, axis)}


def _numbers(value: Value | None) -> NDArray[Any]:
    array = constant(value)
    assert array is not None
    return array


def _pointwise(node: Node, gain: Gain | None) -> Shares:
    return {0: gain}


def _spatial(node: Node, gain: Gain | None) -> Shares:
    if gain is None or (is_op(node, "ReduceMean") and not reduces_positions_only(node)):
        return {}
    before, after = _channels(node.inputs[0], 1), _channels(node.outputs[0], 1)
    return {0: gain} if gain.alike or (gain.axis == 1 and before == after is not None) else {}


def _channels(value: Value | None, axis: int) -> int | None:
    dims = shape(value)
    return None if dims is None or axis >= len(dims) else dims[axis]


def _pair(node: Node, gain: Gain | None) -> Shares:
    """A factor that is not one constant number scales channels differently: no share for what it multiplies."""
    sizes = [array.size for array in map(constant, node.inputs) if array is not None]
    if gain is None or (is_op(node, "Mul", "Div") and any(size != 1 for size in sizes)):
        return {}
    ndim, size = rank(node.outputs[0]), gain.values.size
    return {
        i: gain
        for i, value in enumerate(node.inputs)
        if gain.alike or (rank(value) == ndim and _channels(value, gain.axis) == size)
    }


def _reshape(node: Node, gain: Gain | None) -> Shares:
    """A channel that became a run of channels gets their mean, a run that became one channel its gain."""
    if gain is None or gain.alike:
        return {0: gain}
    before, after = _channels(node.inputs[0], 1), regrouped(node)
    if gain.axis != 1 or after != gain.values.size or not before:
        return {}
    if after % before == 0:
        return {0: gain._replace(values=gain.values.reshape(before, -1).mean(1))}
    return {0: gain._replace(values=gain.values.repeat(before // after))} if before % after == 0 else {}


def _concat(node: Node, gain: Gain | None) -> Shares:
    """Each input its part, along the axis of channels; the whole, along another."""
    axis = node.attributes.get_int("axis", 1) % (rank(node.outputs[0]) or 1)
    if gain is None or gain.alike or axis != gain.axis:
        return dict.fromkeys(range(len(node.inputs)), gain)
    widths = [_channels(value, axis) or 0 for value in node.inputs]
    if 0 in widths or sum(widths) != gain.values.size:
        return {}
    parts = np.split(gain.values, np.cumsum(widths)[:-1])
    return {i: gain_of(part, gain.log, axis) for i, part in enumerate(parts)}


def _pad(node: Node, gain: Gain | None) -> Shares:
    """The channels between those that were added."""
    pads = constant(input_at(node, 1))
    if gain is None or gain.alike:
        return {0: gain}
    if pads is None or input_at(node, 3) is not None or pads.min() < 0:
        return {}
    before, after = pads.reshape(2, -1)[:, gain.axis]
    return {0: gain_of(gain.values[before : gain.values.size - after], gain.log, gain.axis)}


def _slice(node: Node, gain: Gain | None) -> Shares:
    """Nothing for channels that are left out."""
    if gain is None or gain.alike:
        return {0: gain}
    size, ndim = _channels(node.inputs[0], gain.axis), rank(node.inputs[0]) or 1
    starts, ends, axes, steps = (constant(input_at(node, index)) for index in range(1, 5))
    if size is None or starts is None or ends is None or axes is None:
        return {}
    steps = np.ones_like(starts) if steps is None else steps
    taken = np.arange(size)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % ndim == gain.axis:
            taken = taken[slice(int(start), int(end), int(step))]
    values = np.zeros(size)
    values[taken] = gain.values
    return {0: gain_of(values, gain.log, gain.axis)}


RULES: dict[tuple[str, ...], Callable[[Node, Gain | None], Shares]] = {
    LAYERS: _layer,
    POINTWISE: _pointwise,
    SPATIAL: _spatial,
    PAIRS: _pair,
    RESHAPES: _reshape,
    ("Concat",): _concat,
    ("Pad",): _pad,
    ("Slice",): _slice,
}
