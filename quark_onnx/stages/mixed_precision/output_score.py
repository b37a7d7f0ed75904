"""What a quantized model is worth: a metric of its outputs against the float model's, on a few samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.mixed_precision import Mixing
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted, counted_pairs
from quark_onnx.engine.kept_feeds import keep, quarter_of_memory
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model
from quark_onnx.graph.view import numpy_dtype, shape
from quark_onnx.numerics.metrics import Agreement
from quark_onnx.numerics.output_measures import OutputMeasure
from quark_onnx.numerics.output_pairs import paired


class Judge:
    """Scores quantized models; the float model runs once.

    Args:
        fuse: run them as a user's onnxruntime does, on integer kernels; False: they are for another runtime.
        counted: which positions of the outputs are looked at; None: all.

    Of outputs that are not float each value counts 1, and 1 or 0 in the quantized model (`output_pairs`).

    Raises:
        ConfigError: MetricOutputIndex names no output, or one that the metric says nothing of; or it does so of none.
        DataError: there are no feeds.
    """

    def __init__(
        self,
        model: Model,
        feeds: Sequence[Feed],
        settings: Mixing,
        *,
        fuse: bool = True,
        counted: Counted | None = None,
    ) -> None:
        self.settings, self.feeds, self.fuse, self.counted = settings, feeds[: settings.data_size], fuse, counted
        self.shapes = _judged(model, settings)
        self.outputs = list(self.shapes)
        run = Runner(model, self.outputs)
        seen = at_least_one(self.feeds, "scores of layers")
        self.expected = keep((dict(zip(self.outputs, run(feed), strict=True)) for feed in seen), _limit())

    def __call__(self, quantized: Model) -> float:
        """The metric of the output that has the worst.

        Raises:
            ConfigError: no output holds a value on these samples.
        """
        run = Runner(quantized, self.outputs, fuse=self.fuse)
        found = [measure(self.settings.metric_default, self.shapes[name]) for name in self.outputs]
        for feed, expected in zip(self.feeds, self.expected, strict=True):
            for output, name, y in zip(found, self.outputs, run(fit(feed, quantized)), strict=True):
                for pair in counted_pairs(self.counted, name, expected[name], y, feed):
                    output.add(*pair)
        values = [output.value for output in found if not math.isnan(output.value)]
        if not values:
            raise ConfigError(
                f"include_auto_mp judges outputs, and on these samples {', '.join(self.outputs)} holds no value: name "
                "another one with MetricOutputIndex, or give other samples"
            )
        return min(values) if self.settings.more_is_better else max(values)


def _limit() -> int:
    """Bytes of float outputs that are held in memory."""
    return quarter_of_memory() // 4


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


def _judged(model: Model, settings: Mixing) -> dict[str, tuple[int | None, ...] | None]:
    """The outputs that count, and their dimensions as the model names them."""
    outputs, index, metric = list(model.graph.outputs), settings.metric_output_index, settings.metric_default
    if index is not None and index >= len(outputs):
        raise ConfigError(
            f"AutoMixprecision MetricOutputIndex {index}: the model has {len(outputs)} outputs, the first is 0"
        )
    chosen = outputs if index is None else [outputs[index]]
    able = {value.name or "": shape(value) for value in chosen if metric != "kl" or _is_float(numpy_dtype(value))}
    if not able:
        which = "no output of the model is one" if index is None else f"output {chosen[0].name!r} is none"
        raise ConfigError(
            f"include_auto_mp by MetricDefault 'kl' judges float outputs, and {which}; name another one with "
            "MetricOutputIndex, or choose another metric"
        )
    return able


def _is_float(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and dtype.kind == "f"
