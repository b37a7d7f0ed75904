"""What a quantized model is worth: a metric of its outputs against the float model's, on a few samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.mixed_precision import Mixing
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.output_judge import OutputJudge, Run
from quark_onnx.graph import Model
from quark_onnx.graph.view import numpy_dtype
from quark_onnx.numerics.metrics import Agreement
from quark_onnx.numerics.output_measures import OutputMeasure
from quark_onnx.numerics.output_pairs import paired


@dataclass(frozen=True, eq=False)
class Score:
    """Scores quantized models by the configured metric, on the judge's outputs."""

    judge: OutputJudge
    settings: Mixing

    def __call__(self, run: Run) -> float:
        """The metric of the output that has the worst.

        Raises:
            ConfigError: no output holds a value on these samples.
        """
        measures = self.judge.sums(run, lambda declared: measure(self.settings.metric_default, declared)).measures
        values = [output.value for output in measures.values() if not math.isnan(output.value)]
        if not values:
            raise ConfigError(
                f"include_auto_mp judges outputs, and on these samples {', '.join(self.judge.names)} holds no value: "
                "name another one with MetricOutputIndex, or give other samples"
            )
        return min(values) if self.settings.more_is_better else max(values)


def score_on(model: Model, feeds: Sequence[Feed], settings: Mixing, counted: Counted | None = None) -> Score:
    """The score of quantized models against a float one.

    Args:
        counted: which positions of the outputs are looked at; None: all.

    Of outputs that are not float each value counts 1, and 1 or 0 in the quantized model (`output_pairs`).

    Raises:
        ConfigError: MetricOutputIndex names no output, or one that the metric says nothing of; or it does so of none.
        DataError: there are no feeds.
    """
    return Score(OutputJudge(model, feeds[: settings.data_size], counted, _judged(model, settings)), settings)


def measure(metric: str, declared: Sequence[int | None] | None = None) -> OutputMeasure | OutputAgreement:
    """What counts answers by a metric; by "sqnr" as reports and budgets do, so that the worst slice counts."""
    return OutputMeasure(declared) if metric == "sqnr" else OutputAgreement(metric)


class OutputAgreement:
    """An `Agreement` of the arrays in the answers of both models."""

    def __init__(self, metric: str) -> None:
        self.agreement = Agreement(metric)

    def add(self, reference: object, other: object) -> None:
        """Count what the two models make of one sample."""
        for pair in paired(reference, other):
            self.agreement.add(pair.x, pair.y)

    @property
    def value(self) -> float:
        """The metric; NaN where nothing was measured."""
        return self.agreement.value if self.agreement.count else math.nan


def _judged(model: Model, settings: Mixing) -> list[str]:
    """The outputs that count."""
    outputs, index, metric = list(model.graph.outputs), settings.metric_output_index, settings.metric_default
    if index is not None and index >= len(outputs):
        raise ConfigError(
            f"AutoMixprecision MetricOutputIndex {index}: the model has {len(outputs)} outputs, the first is 0"
        )
    chosen = outputs if index is None else [outputs[index]]
    able = [value.name or "" for value in chosen if metric != "kl" or _is_float(numpy_dtype(value))]
    if not able:
        which = "no output of the model is one" if index is None else f"output {chosen[0].name!r} is none"
        raise ConfigError(
            f"include_auto_mp by MetricDefault 'kl' judges float outputs, and {which}; name another one with "
            "MetricOutputIndex, or choose another metric"
        )
    return able


def _is_float(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and dtype.kind == "f"
