"""Equalization of real models: the float outputs stay, and the channels of the weights become even."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.stages.channel_importance import channel_importance
from quark_onnx.stages.equalize import equalize, rescale, tensors_needed
from quark_onnx.stages.prepare import prepare

pytestmark = pytest.mark.assets

LAYERS = {"mobilenet-imagenet": 27, "resnet20-cifar10": 9}  # all but the last; of resnet20 the first of every block


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("task", LAYERS)
def test_the_outputs_stay(protocol: ModuleType, task: str, absorb: bool) -> None:
    job = protocol.TASKS[task]
    model, feeds = prepare(io.load(job.model), opset=13).model, job.calib(40)
    extremes = channel_extremes(model, feeds, tensors_needed(model, absorb=absorb), lambda done: None)
    result = equalize(model, extremes, absorb=absorb)
    scaled = rescale(model, result.factors, result.shifts)
    assert sum(o.rule == "equalize" and o.reason is None for o in result.log) == LAYERS[task]
    before, after = Runner(model, threads=1), Runner(scaled, threads=1)
    for feed in feeds[:20]:
        assert protocol.sqnr_db(before(feed)[0], after(feed)[0]) >= 80


def test_the_weights_of_mobilenet_become_even(protocol: ModuleType) -> None:
    """The largest row of each weight against the median one is what one scale for all costs; in the geometric mean."""
    job = protocol.TASKS["mobilenet-imagenet"]
    model, feeds = prepare(io.load(job.model), opset=13).model, job.calib(40)
    result = equalize(model, channel_extremes(model, feeds, tensors_needed(model), lambda done: None))
    scaled = rescale(model, result.factors, result.shifts)

    def unevenness(source: Model) -> float:
        weights = [source.graph.initializers[name].const_value.numpy() for name in result.factors]
        rows = [np.abs(w).reshape(len(w), -1).max(1) for w in weights if w.ndim == 4]
        return float(np.exp(np.mean([np.log(r.max() / np.median(r)) for r in rows])))

    assert unevenness(scaled) < 0.7 * unevenness(model)


def test_importance_reaches_the_input(protocol: ModuleType) -> None:
    for task in LAYERS:
        model = prepare(io.load(protocol.TASKS[task].model), opset=13).model
        found = channel_importance(model)
        assert found.keys() >= {model.graph.inputs[0].name}
        layers = [node.outputs[0].name for node in model.graph if node.op_type in ("Conv", "Gemm")]
        assert [name for name in layers if name not in found] == layers[-1:]  # the model's output
