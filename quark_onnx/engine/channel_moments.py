"""Mean and variance of every channel of chosen tensors over the first samples of the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import first
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.graph.channel_probe import with_channel_moments

Tick = Callable[[int], None]
Channels = tuple[str, int]
Moment = tuple[NDArray[np.float32], NDArray[np.float32]]
Moments = dict[Channels, Moment]

HUGE = 1e20
"""Sums of squares from which on float32 has no room for what is made of them: squares of sums times weights."""

SAMPLES = 64
"""Samples that are looked at: means per channel settle long before ranges do."""


def channel_moments(model: Model, feeds: Iterable[Feed], wanted: Sequence[Channels], tick: Tick) -> Moments:
    """Per entry of `wanted`, a tensor and its axis of channels, mean and variance over samples and all other axes.

    onnxruntime reduces each sample; the means of samples are added in float64, one after the other, so that the result
    does not depend on how they are batched. Entries whose rank, number of channels or float type is unknown, that are
    huge or not finite, or of which no value is seen, are left out; without any other no feed is read. `tick` is called
    with the number of feeds done.
    """
    probed, names = with_channel_moments(model, wanted)
    if not names:
        return {}
    sums: dict[Channels, list[Any]] = {key: [0.0, 0.0] for key in names}
    counts = dict.fromkeys(names, 0)
    runner = Runner(probed, [output for three in names.values() for output in three])
    for done, (_, arrays) in enumerate(runner.stream(first(feeds, SAMPLES)), start=1):
        for key, *pair, size in zip(names, arrays[::3], arrays[1::3], arrays[2::3], strict=True):
            if not size:
                continue
            rows = [np.atleast_2d(a).astype(np.float64) for a in pair]
            counts[key] += len(rows[0])
            for i, side in enumerate(rows):
                for row in side:
                    sums[key][i] = sums[key][i] + row
        tick(done)
    found: Moments = {}
    for key, (total, squares) in sums.items():
        if counts[key] and (np.abs(squares) < HUGE).all():  # and a number
            mean = total / counts[key]
            variance = np.maximum(squares / counts[key] - np.square(mean), 0)
            found[key] = mean.astype(np.float32), variance.astype(np.float32)
    return found
