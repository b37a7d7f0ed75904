"""What a quantized model is worth: a metric of its outputs against the float model's, on a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.mixed_precision import Mixing
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import keep, quarter_of_memory
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model
from quark_onnx.graph.view import numpy_dtype
from quark_onnx.numerics.metrics import Agreement


class Judge:
    """Scores quantized models; the float model runs once.

    Raises:
        ConfigError: MetricOutputIndex names no output, or one that is not float; or no output is.
        DataError: there are no feeds.
    """

    def __init__(self, model: Model, feeds: Sequence[Feed], settings: Mixing) -> None:
        self.settings, self.feeds = settings, feeds[: settings.data_size]
        self.outputs = _judged(model, settings.metric_output_index)
        run = Runner(model, self.outputs)
        seen = at_least_one(self.feeds, "scores of layers")
        self.expected = keep((dict(zip(self.outputs, run(feed), strict=True)) for feed in seen), _limit())

    def __call__(self, quantized: Model) -> float:
        """The metric of the output that has the worst, as a user's onnxruntime runs the model."""
        run = Runner(quantized, self.outputs)
        found = [Agreement(self.settings.metric_default) for _ in self.outputs]
        for feed, expected in zip(self.feeds, self.expected, strict=True):
            for agreement, name, y in zip(found, self.outputs, run(fit(feed, quantized)), strict=True):
                agreement.add(expected[name], y)
        values = [agreement.value for agreement in found]
        return min(values) if self.settings.more_is_better else max(values)


def _limit() -> int:
    """Bytes of float outputs that are held in memory."""
    return quarter_of_memory() // 4


def _judged(model: Model, index: int | None) -> list[str]:
    outputs = list(model.graph.outputs)
    if index is not None and index >= len(outputs):
        raise ConfigError(
            f"AutoMixprecision MetricOutputIndex {index}: the model has {len(outputs)} outputs, the first is 0"
        )
    chosen = outputs if index is None else [outputs[index]]
    floats = [value.name or "" for value in chosen if _is_float(numpy_dtype(value))]
    if not floats:
        which = "no output of the model is one" if index is None else f"output {chosen[0].name!r} is none"
        raise ConfigError(
            f"include_auto_mp judges float outputs, and {which}; name another one with MetricOutputIndex, or cut the "
            "model in front of what makes classes of its outputs"
        )
    return floats


def _is_float(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and dtype.kind == "f"
