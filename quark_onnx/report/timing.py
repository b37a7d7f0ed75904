"""Latency of the float and of the quantized model, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model
from quark_onnx.report.model_report import Latency, Timing

ROUNDS = 200
"""Timed runs of each model, at most."""

SECONDS = 2.0
"""No new round begins after so many seconds."""

WARM_UP = 2
"""Runs that are not timed: onnxruntime plans its memory in the first one."""


def latency(
    model: Model, quantized: Model, feeds: Sequence[Feed], *, rounds: int = ROUNDS, threads: int = 1
) -> Latency:
    """Time both models on the feeds; they take turns, so that whatever else the machine does slows both.

    Args:
        rounds: runs of each, fewer where that takes too long.
        threads: that onnxruntime may use; 0: its own choice.
    """
    runners = [Runner(model, threads=threads), Runner(quantized, threads=threads)]
    pairs = [(fit(feed, model), fit(feed, quantized)) for feed in feeds]
    taken: list[list[float]] = [[], []]
    begin = time.perf_counter()
    for turn in range(-WARM_UP, rounds):
        if turn > 0 and time.perf_counter() - begin > SECONDS:
            break
        for runner, feed, seconds in zip(runners, pairs[turn % len(pairs)], taken, strict=True):
            start = time.perf_counter()
            runner(feed)
            if turn >= 0:
                seconds.append(time.perf_counter() - start)
    batch = max((array.shape[0] for array in feeds[0].values() if array.ndim), default=1)
    return Latency(_timing(taken[0]), _timing(taken[1]), len(taken[0]), batch, threads)


def _timing(seconds: Sequence[float]) -> Timing:
    low, median, high = (round(float(q) * 1000, 4) for q in np.quantile(seconds, (0.1, 0.5, 0.9)))
    return Timing(median, low, high)
