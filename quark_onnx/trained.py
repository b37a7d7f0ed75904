"""The quantized model trained as a whole, on the feeds of a decided job: the last that is decided."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quark_onnx.clock import Clock
from quark_onnx.decided import Decided
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.result_wording import training_warnings
from quark_onnx.stages.train import in_threads, train_model
from quark_onnx.stages.train.shared_execution import shared
from quark_onnx.training_data import TrainingData


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

    def tell(text: str, done: int, total: int) -> None:
        clock.progress(f"train {text}", done, total)

    computing = in_threads if crew is None else partial(shared, crew)
    model, plan, feeds, labels = job.prepared, begun.plan, begun.feeds, given.labels
    with clock.stage("train"):
        done = train_model(model, plan, feeds, labels, settings, tell, augment=given.augment, computing=computing)
    warnings = (*begun.warnings, *training_warnings(done.record), *done.doubts)
    return replace(begun, plan=done.plan, training=done.record, warnings=warnings)
