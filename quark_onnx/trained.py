"""The quantized model trained as a whole, on the feeds of a decided job: the last that is decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path

from quark_onnx.clock import Clock
from quark_onnx.core.errors import DataError
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.decided import Decided
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.result_wording import training_warnings
from quark_onnx.engine.runner import input_specs
from quark_onnx.job import Job
from quark_onnx.stages.train.augmentation import flips_and_crops
from quark_onnx.stages.train.batches import Batches, run_together
from quark_onnx.stages.train.checkpoint import Checkpoint, digest
from quark_onnx.stages.train.execution import threads
from quark_onnx.stages.train.plan_parameters import parameters
from quark_onnx.stages.train.schedules import Schedule
from quark_onnx.stages.train.shared_execution import shared
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import TrainingGraph, training_graph
from quark_onnx.stages.train.training_loop import Trainer
from quark_onnx.training_data import TrainingData


def trained(begun: Decided, given: TrainingData, clock: Clock, crew: Crew | None = None) -> Decided:
    """The same with the plan that is best on held-out samples, which is the one there was where nothing is better.

    crew: shares the samples of each step; None: threads of this process do.

    Raises:
        ConfigError: a loss needs labels that there are not, or names what the model does not have.
        DataError: there are too few samples.
    """
    job, settings = begun.job, begun.job.config.training
    if settings is None or not begun.plan.nodes:
        return begun
    with clock.stage("train"):
        batches = _batches(job, settings, begun.feeds, given)
        kind = None if given.labels is None else (str(given.labels.dtype), given.labels.ndim)
        losses = settings.losses_for(None if kind is None else kind[0])
        graph = training_graph(job.prepared, begun.plan, losses, labels=kind)
        found = parameters(job.prepared, begun.plan, graph, settings)
        schedule = Schedule.of(settings, len(batches))
        file = None if settings.checkpoint is None else Path(settings.checkpoint)
        of = digest(_of_result(settings), begun.plan.model, batches.samples, found.start())
        step = threads(partial(Step, graph, job.prepared)) if crew is None else shared(crew, graph, job.prepared)
        with step as execution:
            tell = lambda text, done, total: clock.progress(f"train {text}", done, total)  # noqa: E731
            trainer = Trainer(found, batches, execution, losses.weights, settings, schedule, Checkpoint(file, of), tell)
            done = trainer.train()
    warnings = (*begun.warnings, *training_warnings(done.record), *_told(graph))
    return replace(begun, plan=done.plan, training=done.record, warnings=warnings)


def _batches(job: Job, settings: QAT, feeds: Kept, given: TrainingData) -> Batches:
    augment = given.augment or flips_and_crops(
        input_specs(job.prepared), given.labels, flip=settings.flip, crop=settings.crop
    )
    batches = Batches(
        feeds,
        batch_size=settings.batch_size,
        shard=settings.shard,
        seed=settings.seed,
        holdout=settings.holdout,
        augment=augment,
        batched=run_together(job.prepared, feeds),
    )
    if not batches.judges:
        raise DataError("training takes at least two samples, one of which judges; give some hundreds")
    return batches


def _of_result(settings: QAT) -> dict[str, object]:
    """The settings that have a say in the result: a training may go on with another limit of time."""
    return {key: value for key, value in asdict(settings).items() if key not in ("checkpoint", "time_limit")}


def _told(graph: TrainingGraph) -> Iterator[str]:
    """What gradients do not go through."""
    for stop in islice(graph.stops, 1):
        yield f"training: no gradient goes through {stop.node!r} ({stop.op_type}): {stop.reason}"
