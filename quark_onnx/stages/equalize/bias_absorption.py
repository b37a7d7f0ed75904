"""High biases move on: where z ≥ c > 0 on all data, W2 relu(z) + b2 = W2 relu(z − c) + (b2 + W2 c).

So b1 loses c and b2 gains W2 c, and the range of the activation between them shrinks by c. On the data seen this is
exact, for every f that lets a shift of positive values through; a Clip does where its bound is not reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.graph.rewrite import Outcome
from quark_onnx.numerics.equalization import high_bias_absorption
from quark_onnx.stages.equalize.channel_spaces import Space
from quark_onnx.stages.equalize.scalable_layer import Layer

Array = NDArray[Any]


def absorb_biases(
    layers: Sequence[Layer],
    spaces: Sequence[Space],
    held: Sequence[Array],
    rows: Mapping[int, Array],
    extremes: Mapping[str, tuple[Array, Array]],
) -> tuple[dict[str, Array], list[Outcome]]:
    """What to add to which bias, after it was scaled.

    Args:
        spaces: that are scaled.
        held: by space, the channels that reach a Clip.
        rows: by layer, the factors of its rows.
        extremes: by tensor, of the model before it was scaled.
    """
    moved: dict[int, Array] = {}
    outcomes = []
    for space, clipped in zip(spaces, held, strict=True):
        producer = space.producers[0]
        reason = _why_not(space, extremes.get(layers[producer].output))
        outcomes += [Outcome("absorb", layers[i].name, reason) for i in space.producers]
        if reason is not None:
            continue
        lowest = extremes[layers[producer].output][0]
        for i in space.consumers:
            lowered, raised = high_bias_absorption(np.zeros_like(lowest), lowest, layers[i].response(), clipped)
            moved[i] = moved.get(i, 0.0) + rows.get(i, 1.0) * raised
        moved[producer] = moved.get(producer, 0.0) + rows[producer] * lowered
    shifts = {name: shift for i in moved for name, shift in layers[i].for_bias(moved[i]).items()}
    return shifts, outcomes


def _why_not(space: Space, extremes: tuple[Array, Array] | None) -> str | None:
    if space.fixed_bias is not None:
        return space.fixed_bias
    if extremes is None or not np.isfinite(extremes[0]).all():
        return "the range of its output is not known"
    return None if (extremes[0] > 0).any() else "every channel falls to 0"
