"""A plan in, a trained plan out: samples, losses, graph, parameters and schedule put together, and run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Training
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model
from quark_onnx.stages.train.augmentation import flips_and_crops
from quark_onnx.stages.train.batches import Augment, Batches, run_together
from quark_onnx.stages.train.checkpoint import Checkpoint, digest
from quark_onnx.stages.train.execution import Execution, threads
from quark_onnx.stages.train.labels_of_outputs import refuse_misfit
from quark_onnx.stages.train.plan_parameters import parameters
from quark_onnx.stages.train.schedules import Schedule
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import TrainingGraph, training_graph
from quark_onnx.stages.train.training_loop import Tell, Trainer

Array = NDArray[Any]

Computing = Callable[[TrainingGraph, Model, int | None], AbstractContextManager[Execution]]
"""Who computes the steps of a graph, with the float model as teacher, and a limit of memory, see `Step`."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """plan    the very one that was given where nothing is better
    record  how it went
    doubts  what the user should know of the model: where no gradient goes through
    """

    plan: Plan
    record: Training
    doubts: tuple[str, ...]


def in_threads(graph: TrainingGraph, teacher: Model, limit: int | None) -> AbstractContextManager[Execution]:
    """Steps are computed by threads of this process."""
    return threads(partial(Step, graph, teacher, limit=limit))


def train_model(
    model: Model,
    plan: Plan,
    feeds: Kept,
    labels: Array | None,
    settings: QAT,
    tell: Tell,
    *,
    augment: Augment | None = None,
    computing: Computing = in_threads,
) -> Outcome:
    """The plan that is best on held-out samples, which is the one there was where nothing is better.

    Args:
        model: the prepared float model, which the plan belongs to.
        feeds: samples, with their labels where there are any.
        labels: of all samples.
        augment: what is done to samples, in place of flips and crops.

    Raises:
        ConfigError: a loss needs labels that there are not, or names what the model does not have.
        DataError: there are too few samples, or labels do not fit the outputs.
    """
    kind = None if labels is None else (str(labels.dtype), labels.ndim)
    losses = settings.losses_for(None if kind is None else kind[0])
    refuse_misfit(model, feeds, labels, losses)
    batches = _batches(model, settings, feeds, labels, augment)
    graph = training_graph(model, plan, losses, labels=kind, shapes=batches.shapes)
    found = parameters(model, plan, graph, settings)
    schedule = Schedule.of(settings, len(batches))
    checkpoint = Checkpoint(None)
    if settings.checkpoint is not None:
        made_of = _of_result(settings) | {"augment": getattr(augment, "__qualname__", type(augment).__name__)}
        of = digest(made_of, plan.model, batches.digest(), found.start())
        checkpoint = Checkpoint(Path(settings.checkpoint), of)
    with computing(graph, model, settings.memory_limit) as execution:
        done = Trainer(found, batches, execution, losses.weights, settings, schedule, checkpoint, tell).train()
    doubts = (f"no gradient goes through {one.node!r} ({one.op_type}): {one.reason}" for one in islice(graph.stops, 1))
    return Outcome(done.plan, done.record, tuple(f"training: {doubt}" for doubt in doubts))


def _batches(model: Model, settings: QAT, feeds: Kept, labels: Array | None, augment: Augment | None) -> Batches:
    if augment is not None and (settings.flip or settings.crop):
        raise ConfigError("QAT: augment is in place of flip and crop, which are set, too; leave one of them out")
    usual = flips_and_crops(input_specs(model), labels, flip=settings.flip, crop=settings.crop)
    batches = Batches(
        feeds,
        batch_size=settings.batch_size,
        shard=settings.shard,
        seed=settings.seed,
        holdout=settings.holdout,
        augment=augment or usual,
        batched=run_together(model, feeds),
    )
    if not batches.judges:
        raise DataError("training takes at least two samples, one of which judges; give some hundreds")
    return batches


def _of_result(settings: QAT) -> dict[str, object]:
    """The settings that have a say in the result: a training may go on with another limit of time."""
    return {key: value for key, value in asdict(settings).items() if key not in ("checkpoint", "time_limit")}
