"""How far every channel of chosen tensors reaches over the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.crew import Crew, passed
from quark_onnx.graph import Model
from quark_onnx.graph.channel_probe import with_channel_extremes

Tick = Callable[[int], None]
Extremes = dict[str, tuple[NDArray[Any], NDArray[Any]]]


def channel_extremes(
    model: Model, feeds: Iterable[Feed], tensors: Sequence[str], tick: Tick, crew: Crew | None = None
) -> Extremes:
    """Per channel (axis 1) the minimum and the maximum over all feeds; onnxruntime reduces, so nothing large is kept.

    Of no values the minimum is +∞ and the maximum −∞.
    Tensors whose rank, number of channels or float type is unknown are left out; without any other no feed is read.
    `tick` is called with the number of feeds done.

    Raises:
        DataError: there are no feeds, or the model fails on one.
    """
    probed, names = with_channel_extremes(model, tensors)
    found: Extremes = {}
    if not names:
        return found
    outputs = [output for pair in names.values() for output in pair]
    look = partial(_listed, outputs)
    passes = passed(probed, outputs, at_least_one(feeds, "extremes of channels"), look, crew)
    for done, arrays in enumerate(passes, start=1):
        for tensor, low, high in zip(names, arrays[::2], arrays[1::2], strict=True):
            before = found.get(tensor, (low, high))
            found[tensor] = np.minimum(before[0], low), np.maximum(before[1], high)
        tick(done)
    return found


def _listed(names: Sequence[str], number: int, values: Mapping[str, Any]) -> list[NDArray[Any]]:
    return [values[name] for name in names]
