"""A training step on samples that run together: what the float model makes of them, the loss, its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.labels import LABELS
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.stages.train.recomputation import Recomputed, whole_way
from quark_onnx.stages.train.training_graph import TrainingGraph

Values = Mapping[str, NDArray[Any]]
"""What the inputs of parameters are fed, by their names."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """Sums over the samples of a shard: the terms of the loss, and its gradients by inputs of parameters."""

    terms: dict[str, float]
    samples: int
    of: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Sums over the samples of a shard, and the outputs of the model."""

    terms: dict[str, float]
    samples: int
    outputs: dict[str, NDArray[Any]]


class Step:
    """Runs a training graph. Each has sessions of its own, and may be used by one thread at a time.

    Args:
        teacher: the prepared float model.
        threads: of one run.
        limit: bytes of activations, beyond which they are computed twice; None: as many as it takes.
    """

    def __init__(self, graph: TrainingGraph, teacher: Model, threads: int = 1, limit: int | None = None) -> None:
        self._graph = graph
        names = list(graph.teachers)
        self._teacher = Runner(io.with_outputs(teacher, names), names, threads=threads) if names else None
        self._both = whole_way(graph, threads) if limit is None else Recomputed(graph, limit, threads)
        told = [*graph.terms.values(), *graph.outputs]
        self._forward = Runner(graph.forward, told, optimized=False, threads=threads)

    def gradients(self, values: Values, shard: Feed) -> Gradients:
        """The terms of the loss and its gradients, sums over the samples.

        Args:
            values: of all inputs of parameters.
            shard: the model's inputs, and labels under `LABELS`.
        """
        feed = {**self._fed(shard), **values, self._graph.incoming: np.ones((), np.float32)}
        found = self._both(feed)
        count = len(self._graph.terms)
        terms = dict(zip(self._graph.terms, map(float, found[:count]), strict=True))
        return Gradients(terms, samples(shard), dict(zip(self._graph.gradients, found[count:], strict=True)))

    def evaluate(self, values: Values, shard: Feed) -> Evaluated:
        """The terms of the loss and the outputs, to the bit those of the model that is written."""
        found = self._forward({**self._fed(shard), **values})
        count = len(self._graph.terms)
        terms = dict(zip(self._graph.terms, map(float, found[:count]), strict=True))
        return Evaluated(terms, samples(shard), dict(zip(self._graph.outputs, found[count:], strict=True)))

    def _fed(self, shard: Feed) -> Feed:
        """The shard, with what the float model makes of it."""
        feed = {name: array for name, array in shard.items() if name != LABELS}
        if self._teacher is not None:
            feed |= dict(zip(self._graph.teachers.values(), self._teacher(feed), strict=True))
        if self._graph.labels is not None:
            feed[self._graph.labels] = shard[LABELS]
        return feed


def samples(shard: Feed) -> int:
    """How many there are in a shard."""
    array = next(iter(shard.values()))
    return len(array) if array.ndim else 1
