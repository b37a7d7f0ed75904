"""Loaded models timed in turn, so that whatever else the machine does slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from quark_onnx.core.records import Timing
from quark_onnx.engine.calibration_data import Feed

ROUNDS = 200
"""Timed runs of each model, at most."""

SECONDS = 2.0
"""No new round begins after so many seconds."""

WARM_UP = 2
"""Runs that are not timed: runtimes plan their memory in the first one."""


@dataclass(frozen=True)
class Turns:
    """Seconds of each timed run of a model."""

    seconds: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        """What is shown of them."""
        low, median, high = (round(float(q) * 1000, 4) for q in np.quantile(self.seconds, (0.1, 0.5, 0.9)))
        return Timing(median, low, high)


def timed(
    runs: Sequence[Callable[[Feed], object]], feeds: Sequence[Sequence[Feed]], rounds: int = ROUNDS
) -> list[Turns]:
    """Each model on its own feeds, one run in turn."""
    taken = [Turns() for _ in runs]
    begin = time.perf_counter()
    for turn in range(-WARM_UP, rounds):
        if turn > 0 and time.perf_counter() - begin > SECONDS:
            break
        for run, own, found in zip(runs, feeds, taken, strict=True):
            start = time.perf_counter()
            run(own[turn % len(own)])
            if turn >= 0:
                found.seconds.append(time.perf_counter() - start)
    return taken
