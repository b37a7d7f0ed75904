"""Rows of activations: some positions of each sample, and how far every channel reaches over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew, passed
from quark_onnx.graph import Model
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
    crew: Crew | None = None,
) -> dict[str, list[Part]]:
    """Of each tensor what is seen of it in every eighth feed, from each of the first `PARTS` on.

    A position is an index of all axes but the last. Which are kept is drawn: of the number of the feed alone.

    Args:
        channels: tensor → size of its last axis.
        tick: called with the number of feeds done.
        counted: which positions count; None: all.
        crew: whose processes look at feeds; None: this one does.

    Raises:
        DataError: the model fails on a feed.
    """
    parts = min(PARTS, len(feeds))
    held = ROOM // (4 * sum(channels.values()) or 1)
    each = -(-min(ROWS, max(LEAST, held)) // len(feeds))
    found = {name: [_Kept(size) for _ in range(parts)] for name, size in channels.items()}
    look = partial(_seen, channels, each, counted)
    for number, seen in enumerate(passed(model, [*channels], feeds, look, crew)):
        for name, part in seen.items():
            found[name][number % parts].add(part)
        tick(number + 1)
    return {name: [kept.part for kept in row] for name, row in found.items()}


def _seen(
    channels: Mapping[str, int], each: int, counted: Counted | None, number: int, values: Mapping[str, Any]
) -> dict[str, Part]:
    """Of each tensor that holds values: some rows, and extremes of all."""
    found = {}
    for name, size in channels.items():
        array = values[name] if counted is None else counted.values(name, values[name], values)
        rows = array.reshape(-1, size)
        if not len(rows):
            continue
        chosen = np.random.default_rng((SEED, number)).choice(len(rows), min(each, len(rows)), replace=False)
        found[name] = Part(rows[np.sort(chosen)].astype(np.float32), rows.min(0), rows.max(0))
    return found


class _Kept:
    """Rows so far, and extremes of all."""

    def __init__(self, channels: int) -> None:
        self.low, self.high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
        self.rows: list[NDArray[np.float32]] = [np.zeros((0, channels), np.float32)]

    def add(self, seen: Part) -> None:
        """One feed more."""
        self.low, self.high = np.minimum(self.low, seen.low), np.maximum(self.high, seen.high)
        self.rows.append(seen.rows)

    @property
    def part(self) -> Part:
        """What was kept; extremes of no rows are 0."""
        rows = np.concatenate(self.rows)
        nothing = np.zeros(rows.shape[1], np.float32)
        return Part(rows, self.low, self.high) if len(rows) else Part(rows, nothing, nothing)
