"""Shards of mini-batches in processes of a crew: each makes its step once, and gets the parameters once a step.

values ─ once to each process ─▶ shard ─▶ sums over its samples, in the order of the shards
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from threading import local
from typing import Any, cast

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.crew import Crew, Each
from quark_onnx.graph import Model
from quark_onnx.graph.packed_model import PackedModel, packed, unpacked
from quark_onnx.stages.train.execution import Values
from quark_onnx.stages.train.step import Evaluated, Gradients, Step
from quark_onnx.stages.train.training_graph import TrainingGraph

GRADIENTS, LOSSES = "gradients", "evaluate"


@dataclass(frozen=True, eq=False)
class Shared:
    """Computes shards, see `Execution`; each of them by the process that is free."""

    each: Each

    def gradients(self, values: Values, shards: Sequence[Feed]) -> Iterator[Gradients]:
        """See `Execution`."""
        return cast("Iterator[Gradients]", self.each(((GRADIENTS, shard) for shard in shards), values))

    def evaluate(self, values: Values, shards: Sequence[Feed]) -> Iterator[Evaluated]:
        """See `Execution`."""
        return cast("Iterator[Evaluated]", self.each(((LOSSES, shard) for shard in shards), values))


@contextlib.contextmanager
def shared(crew: Crew, graph: TrainingGraph, teacher: Model, limit: int | None = None) -> Iterator[Shared]:
    """The processes of a crew, ready for steps with this graph; arguments are those of `Step`."""
    with crew.ready(partial(_Steps, SentStep.of(graph, teacher, limit))) as each:
        yield Shared(each)


@dataclass(frozen=True, eq=False)
class SentStep:
    """What a step is made of, as another process can be sent it: models of the graph apart from its names."""

    models: Mapping[str, PackedModel]
    names: Mapping[str, Any]
    teacher: PackedModel
    limit: int | None

    @classmethod
    def of(cls, graph: TrainingGraph, teacher: Model, limit: int | None = None) -> SentStep:
        """Its parts."""
        parts = {field.name: getattr(graph, field.name) for field in fields(graph)}
        models = {name: packed(part) for name, part in parts.items() if isinstance(part, Model)}
        names = {name: part for name, part in parts.items() if name not in models}
        return cls(models, names, packed(teacher), limit)

    def made(self) -> Step:
        """The step, with sessions of its own, each of a thread."""
        parts: dict[str, Any] = {name: unpacked(model) for name, model in self.models.items()}
        return Step(TrainingGraph(**parts, **self.names), unpacked(self.teacher), threads=1, limit=self.limit)


class _Steps:
    """What a process does with shards: each of its threads has a step of its own."""

    def __init__(self, sent: SentStep) -> None:
        self._sent, self._own = sent, local()

    def __call__(self, job: tuple[str, Feed], values: Values) -> Gradients | Evaluated:
        step: Step | None = getattr(self._own, "step", None)
        if step is None:
            step = self._own.step = self._sent.made()
        kind, shard = job
        return step.gradients(values, shard) if kind == GRADIENTS else step.evaluate(values, shard)
