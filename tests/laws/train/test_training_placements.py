"""The forward pass is the exported model, to the bit, wherever quantizers are placed, and gradients go through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from operator_examples import TABLE
from quantized_models import Feed, Made, feeds, graph, graph_between, quantized, run
from text_models import normal, text_model
from training_values import values_of

from quark_onnx.clock import Clock, unseen
from quark_onnx.core.settings.presets import get_default_config
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.calibration_data import open_data
from quark_onnx.engine.runner import input_specs
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import decide
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import TrainingGraph, training_graph

RESNET = Path(__file__).parents[4] / "shared" / "assets" / "resnet20_cifar10.onnx"


def as_exported(made: Made, feed: Feed) -> TrainingGraph:
    """The graph of a step, which computes what the exported model does, and finite gradients."""
    found = training_graph(made.model, made.plan, Losses())
    values, step = values_of(found, made.model, made.plan), Step(found, made.model)
    evaluated, back = step.evaluate(values, feed), step.gradients(values, feed)
    for got, expected in zip(evaluated.outputs.values(), run(made.quantized, feed), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert back.terms == pytest.approx(evaluated.terms, rel=1e-3, abs=1e-6)
    for name, gradient in back.of.items():
        assert gradient.shape == values[name].shape
        assert np.isfinite(gradient).all(), name
    return found


@pytest.mark.parametrize("op_type", TABLE)
def test_every_operator_that_is_quantized(op_type: str) -> None:
    model = graph_between(TABLE[op_type][0])
    made = quantized(model, activation_type="uint8", weight_type="uint8", per_channel=True)
    found = as_exported(made, feeds(model)[0])
    assert (found.stops, found.unreached) == ((), ())


CONV = "<float[4,4,3,3] w, float[4,4,3,3] v, float[4] b, float lo = {-1}, float hi = {1}>"
GRAPHS: dict[str, tuple[str, dict[str, Any]]] = {
    "a layer that returns floats, and its bias": (
        "(float[1,16] x) => (float[1,9] y, float[1,9] z) <float[16,9] w, float[9] b>"
        " { y = Gemm (x, w, b) z = Erf (y) }",
        {"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    ),
    "the same with a float bias": (
        "(float[1,16] x) => (float[1,9] y) <float[16,9] w, float[9] b> { h = Gemm (x, w, b) y = Relu (h) }",
        {"OpTypesToExcludeOutputQuantization": ["Gemm", "Relu"], "QuantizeBias": False},
    ),
    "an addition of one axis behind a product of three": (
        "(float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w, float[5] b> { h = MatMul (x, w) y = Add (b, h) }",
        {},
    ),
    "a clamp behind a product that returns floats": (
        "(float[2,4] x) => (float[2,5] y) <float[4,5] w> { h = MatMul (x, w) y = Relu (h) }",
        {"OpTypesToExcludeOutputQuantization": ["MatMul", "Relu"]},
    ),
    "codes that are handed on": (
        f"(float[1,4,8,8] x) => (float[1,4,4,4] y) {CONV} {{ h = Conv <pads = [1,1,1,1]> (x, w, b)"
        " g = MaxPool <kernel_shape = [2,2], strides = [2,2]> (h) f = Transpose <perm = [0,1,3,2]> (g)"
        " y = Conv <pads = [1,1,1,1]> (f, v) }",
        {},
    ),
    "a tensor that is read as floats and as integers": (
        f"(float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z) {CONV} {{ h = Conv <pads = [1,1,1,1]> (x, w, b)"
        " e = Erf (h) z = Mul (e, h) y = Conv <pads = [1,1,1,1]> (h, v) }",
        {},
    ),
    "a weight that two layers read, and a float node": (
        "(float[2,4] x) => (float[2,4] y, float[4,4] z) <float[4,4] w>"
        " { h = MatMul (x, w) g = Relu (h) y = MatMul (g, w) z = Erf (w) }",
        {"per_channel": False},
    ),
    "one scale for all that is joined": (
        f"(float[1,4,6,6] x, float[1,4,6,6] z) => (float[A,B,C,D] y) {CONV} {{ h = Conv <pads = [1,1,1,1]> (x, w, b)"
        " k = Concat <axis = 2> (h, z) g = Concat <axis = 3> (k, k) y = Conv (g, v) }",
        {"AlignConcat": True},
    ),
    "a table": (
        "(int64[2] i) => (float[2,5] y) <float[9,4] e, float[4,5] w> { h = Gather (e, i) y = MatMul (h, w) }",
        {},
    ),
    "a table whose rows alone are dequantized": (
        "(int64[2] i) => (float[2,5] y) <float[600,32] e, float[32,5] w>"
        " { h = Gather (e, i) g = Tanh (h) y = MatMul (g, w) }",
        {},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_placements(name: str) -> None:
    text, fields = GRAPHS[name]
    model = graph(text)
    found = as_exported(quantized(model, **fields), feeds(model)[0])
    assert (found.stops, found.unreached) == ((), ())


def decided(model: Path | onnx.ModelProto, data: list[Feed]) -> Made:
    """Prepared and quantized as a user's model is."""
    job = open_job(model, get_default_config("S8S8_AAWS"))
    done = decide(job, open_data(data, input_specs(job.model)), Clock(unseen))
    return Made(done.job.prepared, done.plan, done.job.realize(done.plan))


def test_behind_an_operator_of_another_domain_shapes_are_known() -> None:
    """Which ONNX does not infer there: gradients need them, and stop at that operator alone."""
    text = """g (float[2, 4, 8] x) => (float[2, 4, 5] y) {
        h = MatMul (x, w1) g = com.microsoft.MultiHeadAttention <num_heads = 2> (h, h, h)
        k = MatMul (g, w2) r = Relu (k) y = MatMul (r, w3) }"""
    proto = text_model(text, w1=normal(8, 8), w2=normal(8, 6), w3=normal(6, 5))
    proto.opset_import.add(domain="com.microsoft", version=1)
    data = [{"x": normal(2, 4, 8, seed=seed)} for seed in range(4)]
    made = decided(proto, data)
    found = as_exported(made, data[0])
    assert [(stop.op_type, stop.reason) for stop in found.stops] == [("MultiHeadAttention", "the operator has no rule")]
    reached = {tensor for tensor, name in found.weights.items() if name in found.gradients}
    assert reached == {"w2", "w3"}


@pytest.mark.skipif(not RESNET.is_file(), reason=f"{RESNET} is not there")
def test_a_real_net() -> None:
    """Its tensors are called `/layer1/…`, and what is dequantized of them has shorter names."""
    data = [{"input": normal(1, 3, 32, 32, seed=seed)} for seed in range(4)]
    made = decided(RESNET, data)
    found = as_exported(made, {"input": np.concatenate([feed["input"] for feed in data[:2]])})
    assert (found.stops, found.unreached) == ((), ())
    layers = [node for node in made.model.graph if node.op_type in ("Conv", "Gemm")]
    assert len(found.weights) == len(found.biases) == len(layers)
