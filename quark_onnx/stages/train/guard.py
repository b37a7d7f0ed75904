"""What the held-out samples say of a state, and the best one so far: training never ends worse than it began."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.records import TrainedPoint
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.labels import LABELS
from quark_onnx.stages.train.execution import Execution, Values

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Judge:
    """Looks at the held-out samples. weights: of the terms of the loss."""

    execution: Execution
    shards: Sequence[Feed]
    weights: Mapping[str, float]

    def __call__(self, values: Values, step: int, loss: float | None) -> TrainedPoint:
        """What there is to be said of these values of the parameters."""
        total, samples, right, counted = 0.0, 0, 0, 0
        for shard, found in zip(self.shards, self.execution.evaluate(values, self.shards), strict=True):
            total += sum(self.weights[name] * found.terms[name] for name in self.weights)
            samples += found.samples
            hits = _hits(shard, found.outputs)
            if hits is not None:
                right, counted = right + int(hits.sum()), counted + hits.size
        return TrainedPoint(step, loss, total / samples, right / counted if counted else None)


def _hits(shard: Feed, outputs: Mapping[str, Array]) -> Array | None:
    """Whether the class of each sample is found, where labels are classes and an output has a number for each."""
    labels = shard.get(LABELS)
    if labels is None or labels.dtype.kind not in "iu":
        return None
    for output in outputs.values():
        if output.ndim == labels.ndim + 1 and output.shape[: labels.ndim] == labels.shape:
            return np.asarray(output.argmax(-1) == labels)
    return None


def better(point: TrainedPoint, best: TrainedPoint) -> bool:
    """Whether a point is to be kept instead of the best so far. What is no number is not."""
    return math.isfinite(point.held) and (point.held < best.held or not math.isfinite(best.held))


Judged = Callable[[Values, int, float | None], TrainedPoint]
