"""Calibration: stream the data through the float model and keep mergeable statistics of chosen tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from quark_onnx.engine.data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.numerics.observers import Statistics

Tick = Callable[[int], None]


def observe(model: Model, feeds: Iterable[Feed], tensors: Sequence[str], tick: Tick) -> dict[str, Statistics]:
    """Statistics of `tensors` over all feeds; one feed's activations are in memory at a time (and the next one's).

    `tick` is called with the number of feeds done.
    """
    inputs = {value.name for value in model.graph.inputs}
    fetched = [name for name in tensors if name not in inputs]
    runner = Runner(io.with_outputs(model, fetched), fetched or None)
    statistics = dict.fromkeys(tensors, Statistics.of(np.zeros(0)))
    for done, (feed, arrays) in enumerate(runner.stream(feeds), start=1):
        values = feed | dict(zip(runner.outputs, arrays, strict=True))
        for name in tensors:
            statistics[name] += Statistics.of(values[name])
        tick(done)
    return statistics
