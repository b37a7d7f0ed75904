"""Rows of activations: some positions of each sample, and how far every channel reaches over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.numerics.smoothing import Part

Array = NDArray[Any]
Tick = Callable[[int], None]

ROWS = 512
"""Positions of all samples that are kept of a tensor, where there is room for as many."""

PARTS = 8
"""Parts that feeds are cut into, the first with the ninth and so on."""

ROOM = 1 << 27
"""Bytes that rows of all tensors may take; at least `LEAST` of each are kept."""

LEAST = 64

SEED = 20221


def position_rows(
    model: Model,
    feeds: Sequence[Feed],
    channels: Mapping[str, int],
    tick: Tick,
    counted: Counted | None = None,
) -> dict[str, list[Part]]:
    """Of each tensor what is seen of it in every eighth feed, from each of the first `PARTS` on.

    A position is an index of all axes but the last. Which are kept is drawn: of the number of the feed alone.

    Args:
        channels: tensor → size of its last axis.
        tick: called with the number of feeds done.
        counted: which positions count; None: all.

    Raises:
        DataError: the model fails on a feed.
    """
    parts = min(PARTS, len(feeds))
    held = ROOM // (4 * sum(channels.values()) or 1)
    each = -(-min(ROWS, max(LEAST, held)) // len(feeds))
    found = {name: [_Kept(size) for _ in range(parts)] for name, size in channels.items()}
    inputs = {value.name for value in model.graph.inputs}
    fetched = [name for name in channels if name not in inputs]
    runner = Runner(io.with_outputs(model, fetched), fetched or None)
    for number, (feed, arrays) in enumerate(runner.stream(feeds)):
        values = feed | dict(zip(runner.outputs, arrays, strict=True))
        for name, kept in found.items():
            array = values[name] if counted is None else counted.values(name, values[name], feed)
            rows = array.reshape(-1, channels[name])
            kept[number % parts].add(rows, each, number)
        tick(number + 1)
    return {name: [part.seen for part in kept] for name, kept in found.items()}


class _Kept:
    """Rows so far, and extremes of all."""

    def __init__(self, channels: int) -> None:
        self.low, self.high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
        self.rows: list[NDArray[np.float32]] = [np.zeros((0, channels), np.float32)]

    def add(self, rows: Array, most: int, number: int) -> None:
        """Look at all, and keep some."""
        if not len(rows):
            return
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        chosen = np.random.default_rng((SEED, number)).choice(len(rows), min(most, len(rows)), replace=False)
        self.rows.append(rows[np.sort(chosen)].astype(np.float32))

    @property
    def seen(self) -> Part:
        """What was kept; extremes of no rows are 0."""
        rows = np.concatenate(self.rows)
        nothing = np.zeros(rows.shape[1], np.float32)
        return Part(rows, self.low, self.high) if len(rows) else Part(rows, nothing, nothing)
