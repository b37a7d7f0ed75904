"""The quantized model trained as a whole, on the feeds of a decided job: the last that is decided."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quark_onnx.clock import Clock
from quark_onnx.decided import Decided
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.result_wording import training_warnings
from quark_onnx.stages.train import batches, in_threads, train_model
from quark_onnx.stages.train.shared_execution import shared
from quark_onnx.training_data import TrainingData

POSITIONS = "training: scales stay, as the target shifts between them by few bits; weights and biases are trained"


def without_judges(begun: Decided) -> Decided:
    """The same without the samples that judge the training, if there is one: what it starts from has not seen them."""
    job, settings = begun.job, begun.job.config.training
    if settings is None or not begun.plan.nodes:
        return begun
    return replace(begun, feeds=batches.without_judges(job.prepared, begun.feeds, settings))


def trained(begun: Decided, given: TrainingData, clock: Clock, crew: Crew | None = None) -> Decided:
    """The same with the plan that is best on held-out samples, which is the one there was where nothing is better.

    crew: shares the samples of each step; None: threads of this process do.

    Raises:
        ConfigError: a loss needs labels that there are not, or names what the model does not have.
        DataError: there are too few samples, or labels do not fit the outputs.
    """
    job, settings = begun.job, begun.job.config.training
    if settings is None or not begun.plan.nodes:
        return begun

    told: tuple[str, ...] = ()
    if job.config.row.shifts and (settings.weight_scales or settings.activation_ranges):
        settings = replace(settings, weight_scales=False, activation_ranges=False)
        told = (POSITIONS,)

    def tell(text: str, done: int, total: int) -> None:
        clock.progress(f"train {text}", done, total)

    computing = in_threads if crew is None else partial(shared, crew)
    model, plan, feeds, labels = job.prepared, begun.plan, begun.feeds, given.labels
    with clock.stage("train"):
        done = train_model(model, plan, feeds, labels, settings, tell, augment=given.augment, computing=computing)
    warnings = (*begun.warnings, *training_warnings(done.record), *done.doubts, *told)
    return replace(begun, plan=done.plan, training=done.record, warnings=warnings)
