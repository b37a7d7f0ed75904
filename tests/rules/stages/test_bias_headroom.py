"""A bias next to the end of int32 leaves no room for the products: as onnxruntime runs such a file, the sum wraps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quantized_models import graph

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.engine.compare import compare
from quark_onnx.graph import io

TEXT = {
    "Conv": "(float[1,4,8,8] x) => (float[1,6,8,8] y) { y = Conv <pads=[1,1,1,1]> (x, w, b) }",
    "Gemm": "(float[4,12] x) => (float[4,6] y, float[4,6] z) <float[6,6] v> "
    "{ y = Gemm <transB=1> (x, w, b) z = MatMul (y, v) }",
    "Gemm that returns floats": "(float[4,12] x) => (float[4,6] y) { y = Gemm <transB=1> (x, w, b) }",
}
SHAPES = {"Conv": (6, 4, 3, 3)}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dead", ["a channel", "all"])
@pytest.mark.parametrize("layer", TEXT)
def test_a_bias_on_tiny_weights_runs_as_written(layer: str, dead: str, per_channel: bool) -> None:
    """Tiny weights are a dead channel after folding: its scale is raised until the bias fits. All the output of such a
    channel is its bias, which int32 holds to 2⁻³⁰; what is lost is half a step of the output's 8 bits, 48 dB of it.
    Where that is float, next to nothing is lost: both ways are compared up to 100 dB."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(SHAPES.get(layer, (6, 12))).astype(np.float32) * 0.2
    weight[:1] *= 1e-6
    weight *= 1e-6 if dead == "all" else 1
    bias = np.array([1.5, -0.7, 0.4, 0.9, -1.1, 0.2], np.float32)
    model = graph(TEXT[layer], w=weight, b=bias)
    shape = (1, 4, 8, 8) if layer == "Conv" else (4, 12)
    feeds = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]
    config = replace(get_default_config("S8S8_AAWS"), per_channel=per_channel)
    made = ModelQuantizer(config).quantize_model(io.to_proto(model), None, feeds)
    quantized = io.load(made.model)
    run, written = (min(compare(model, quantized, feeds, optimized=flag).sqnr["y"], 100) for flag in (True, False))
    assert run > 30 and abs(run - written) < 1
