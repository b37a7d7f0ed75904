"""What is to stay float stays float in onnxruntime, too: it would quantize weights between quantized tensors itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import quantized_models

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.engine.compare import compare
from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.graph import Model, io

CONV = """(float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] o) <float[8, 8, 1, 1] w1, float[8] b, float[8, 8, 1, 1] w3> {{
    a = Conv (x, w1)  y = Conv (a, w2, b)  z = {tail} (y)  o = Conv (z, w3) }}"""
TRANSPOSE = CONV.replace("y = Conv", "y = ConvTranspose")
GEMM = """(float[4, 8, 1, 1] x) => (float[4, 8] o, float[4, 8] p) <float[8, 8, 1, 1] w1, float[8] b, float[8, 8] w3> {{
    c = Conv (x, w1)  a = Flatten (c)  y = Gemm (a, w2, b)  z = {tail} (y)  o = Gemm (z, w3)  p = Gemm (a, w3) }}"""
PRODUCT = GEMM.replace("y = Gemm (a, w2, b)", "q = MatMul (a, w2)  y = Add (q, b)")
LAYERS = [
    (CONV, "Conv", (8, 8, 1, 1)),
    (TRANSPOSE, "ConvTranspose", (8, 8, 1, 1)),
    (GEMM, "Gemm", (8, 8)),
    (PRODUCT, "MatMul", (8, 8)),  # a Gemm once onnxruntime has taken in the Add
]

EXCLUDED = {"MatMul": ("MatMul_q", "Add_y")}

SAME = 0.05
"""dB: sums in another order flip a few codes."""


def model_of(text: str, op: str, axes: tuple[int, ...], tail: str = "Relu") -> Model:
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    w[:, 0] *= 50  # one scale for all channels ruins the others
    return quantized_models.graph(text.format(tail=tail), w2=(w.T if op == "Conv" else w).reshape(axes))


def added(model: Model) -> int:
    return sum(node.op_type == "Max" for node in model.graph)


@pytest.mark.parametrize("tail", ["Relu", "Identity", "Sigmoid"])
@pytest.mark.parametrize(("text", "op", "axes"), LAYERS)
def test_a_layer_that_is_excluded_is_computed_in_float(text: str, op: str, axes: tuple[int, ...], tail: str) -> None:
    model = model_of(text, op, axes, tail)
    feeds = quantized_models.feeds(model)
    made = quantized_models.quantized(
        model, feeds, nodes_to_exclude=EXCLUDED.get(op, (f"{op}_y",)), per_channel=True
    ).quantized
    as_written, exposed = (compare(model, made, feeds, optimized=run).sqnr["o"] for run in (False, True))
    shield(made)
    assert added(made) == 1
    assert compare(model, made, feeds, optimized=True).sqnr["o"] == pytest.approx(as_written, abs=SAME)
    if tail != "Sigmoid":  # there, no quantizer stands behind the layer
        assert exposed < as_written - 10 * SAME


@pytest.mark.parametrize(("text", "op", "axes"), LAYERS)
def test_where_nothing_is_excluded_nothing_is_added(text: str, op: str, axes: tuple[int, ...]) -> None:
    made = quantized_models.quantized(model_of(text, op, axes), per_channel=True).quantized
    shield(made)
    assert added(made) == 0


@pytest.mark.parametrize(("target", "count"), [("cpu", 1), ("tensorrt", 0)])
def test_other_targets_have_no_need_of_it(target: str, count: int) -> None:
    model = model_of(*LAYERS[0])
    config = replace(get_default_config("S8S8_ASWS"), target=target, nodes_to_exclude=("Conv_y",))
    result = ModelQuantizer(config).quantize_model(io.to_proto(model), None, quantized_models.feeds(model))
    assert [node.op_type for node in result.model.graph.node].count("Max") == count


@pytest.mark.parametrize("mask", [(4, 4), (1, 4), (2, 1, 4), (4,)])
def test_a_mask_of_scores_is_no_bias(mask: tuple[int, ...]) -> None:
    """Its numbers fit into no int32, but onnxruntime takes what is added for a bias only where it has one axis."""
    text = """(float[2,4,8] x) => (float[2,4,4] o) <float[8,8] w1, float[8,8] w2> {
        q = MatMul (x, w1)  k = MatMul (x, w2)  t = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul (q, t)  y = Add (s, m)  o = Softmax (y) }"""
    values = np.where(np.arange(np.prod(mask)) % 3 == 1, np.float32(-1e9), np.float32(0)).reshape(mask)
    made = quantized_models.quantized(quantized_models.graph(text, m=values), Protect=False).quantized
    shield(made)
    assert added(made) == 0
    kernels = quantized_models.executed_kernels(made)
    assert kernels["MatMulIntegerToFloat"] + kernels["QLinearMatMul"] == 3
