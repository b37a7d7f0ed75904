"""The numpy arithmetic of integer kernels is onnxruntime's, to the bit: saturating where this machine saturates.

Elsewhere the same code with exact sums must agree: then all but the clipping of pairs is proved, and that is proved by
laws/test_saturating_products.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from newer_onnxruntime import needs_version
from onnx_text import parse_model
from quantized_models import feeds, graph, quantized
from saturation import kernels_saturate

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.product_arithmetic import Multiply
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.graph import Model, io
from quark_onnx.numerics.saturating_products import exact_product, saturating_product

HERE: Multiply = saturating_product if kernels_saturate() else exact_product
SCALES = "float xs = {0.02}, uint8 xz = {3}, float ys = {0.6}, uint8 yz = {120}"


def codes(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights, most of them large."""
    rng = np.random.default_rng([seed, *shape])
    return np.where(rng.random(shape) < 0.6, rng.choice([-127, 127], shape), rng.integers(-128, 128, shape)).astype("b")


def inputs(*shape: int, seed: int = 0) -> np.ndarray:
    """Activations, most of them large."""
    rng = np.random.default_rng([seed, *shape])
    return np.where(rng.random(shape) < 0.7, 255, rng.integers(0, 256, shape)).astype(np.uint8)


def kernel(text: str, **arrays: Any) -> Model:
    proto = parse_model(f'<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g {text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items())
    return io.load(proto)


def outputs(model: Model, feed: dict[str, np.ndarray], multiply: Multiply) -> list[np.ndarray]:
    with without_vnni(model, multiply=multiply) as run:
        found = run(feed)
        for first, second in zip(found, run(feed), strict=True):
            np.testing.assert_array_equal(first, second)
        return found


def agrees(model: Model, feed: dict[str, np.ndarray]) -> None:
    """With onnxruntime to the bit; and the model is one whose sums saturate, else this would prove nothing."""
    here = outputs(model, feed, HERE)
    for expected, found in zip(Runner(model, threads=1)(feed), here, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    saturated, exact = outputs(model, feed, saturating_product), outputs(model, feed, exact_product)
    assert any((a != b).any() for a, b in zip(saturated, exact, strict=True))


def scales(*channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"ws": rng.uniform(0.01, 0.03, channels).astype(np.float32), "wz": np.zeros(channels, np.int8)}


CONVS = {
    "1-D": ((2, 5, 9), (6, 5, 3), "pads = [1, 0]"),
    "2-D": ((1, 6, 7, 7), (4, 6, 3, 3), "pads = [1, 1, 0, 1], strides = [2, 1]"),
    "3-D": ((1, 3, 4, 4, 4), (4, 3, 2, 2, 2), "dilations = [1, 2, 1]"),
    "1x1": ((2, 7, 3, 3), (5, 7, 1, 1), ""),
    "same": ((1, 4, 6, 6), (4, 4, 3, 3), 'auto_pad = "SAME_LOWER", strides = [2, 2]'),
    "groups": ((1, 8, 5, 5), (6, 4, 3, 3), "group = 2"),
    "channels times two": ((1, 4, 5, 5), (8, 1, 3, 3), "group = 4"),
    "one channel in": ((1, 1, 6, 6), (5, 1, 3, 3), ""),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("data", "weight", "attributes"), CONVS.values(), ids=CONVS)
def test_convolution(data: tuple[int, ...], weight: tuple[int, ...], attributes: str, per_channel: bool) -> None:
    model = kernel(
        f"(uint8[{','.join(map(str, data))}] x) => (uint8[{','.join('NCDHW'[: len(data)])}] y) <{SCALES}>"
        f"{{ y = QLinearConv <{attributes}> (x, xs, xz, w, ws, wz, ys, yz, b) }}".replace("<>", ""),
        w=codes(*weight),
        b=np.arange(weight[0], dtype=np.int32) * 1000 - 2000,
        **scales(*[weight[0]] * per_channel),
    )
    agrees(model, {"x": inputs(*data)})


@pytest.mark.parametrize("k", [2, 37, 600])
@pytest.mark.parametrize("rows", [1, 5])
def test_sums_of_a_matrix_product(rows: int, k: int) -> None:
    model = kernel(
        f"(uint8[{rows},{k}] x) => (int32[A,B] y) {{ y = MatMulInteger (x, w, xz, wz) }}",
        w=codes(k, 9),
        xz=np.uint8(7),
        wz=np.int8(-3),
    )
    agrees(model, {"x": inputs(rows, k)})


def test_batches_of_weights_and_of_inputs() -> None:
    text = "(uint8[3,4,6] x) => (int32[A,B,C] y, int32[A,B,C] z) { y = MatMulInteger (x, w) z = MatMulInteger (x, v) }"
    agrees(kernel(text, w=codes(3, 6, 5), v=codes(6, 4)), {"x": inputs(3, 4, 6)})


def test_weights_on_the_left_of_signed_inputs() -> None:
    model = kernel(
        "(int8[6,5] x) => (uint8[A,B] y) <float s = {0.1}, float ys = {9}, uint8 wz = {128}, int8 xz = {0}>"
        "{ y = QLinearMatMul (w, s, wz, x, s, xz, ys, wz) }",
        w=inputs(7, 6),
    )
    agrees(model, {"x": codes(6, 5, seed=1)})


MATRICES = {
    "QLinearMatMul": ("uint8", "QLinearMatMul (x, xs, xz, w, ws, wz, ys, yz)", (12, 5), np.zeros(0, np.int32)),
    "QGemm": ("uint8", "com.microsoft.QGemm (x, xs, xz, w, ws, wz, b, ys, yz)", (12, 5), np.arange(5, dtype=np.int32)),
    "QGemm, transposed": (
        "uint8",
        "com.microsoft.QGemm <transB = 1> (x, xs, xz, w, ws, wz, b, ys, yz)",
        (5, 12),
        np.arange(5, dtype=np.int32),
    ),
    "QGemm, floats": (
        "float",
        "com.microsoft.QGemm <alpha = 0.7> (x, xs, xz, w, ws, wz, b)",
        (12, 5),
        np.arange(5, dtype=np.int32) * 99,
    ),
    "MatMulIntegerToFloat": (
        "float",
        "com.microsoft.MatMulIntegerToFloat (x, w, xs, ws, xz, wz, b)",
        (12, 5),
        np.linspace(-1, 1, 5, dtype=np.float32),
    ),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("kind", "node", "shape", "bias"), MATRICES.values(), ids=MATRICES)
def test_matrices(kind: str, node: str, shape: tuple[int, ...], bias: np.ndarray, per_channel: bool) -> None:
    text = f"(uint8[4,12] x) => ({kind}[A,B] y) <{SCALES}> {{ y = {node} }}"
    agrees(kernel(text, w=codes(*shape), b=bias, **scales(*[5] * per_channel)), {"x": inputs(4, 12)})


@pytest.mark.parametrize("low", [-1.0, 0.5])
def test_inputs_that_are_quantized_at_run_time(low: float) -> None:
    text = "(float[3,16] x) => (float[A,B] y) { y = com.microsoft.DynamicQuantizeMatMul (x, w, ws, wz, b) }"
    model = kernel(text, w=codes(16, 5), b=np.linspace(-1, 1, 5, dtype=np.float32), **scales(5))
    feed = np.where(inputs(3, 16) > 200, 3, np.linspace(low, 3, 48).reshape(3, 16)).astype(np.float32)
    agrees(model, {"x": feed})


@pytest.mark.parametrize("kinds", [{}, {"per_channel": True}, {"activation_type": "uint8"}])
def test_a_model_with_all_kinds_of_nodes(kinds: dict[str, Any]) -> None:
    text = """(float[2,4,8,8] x) => (float[A,B] y, float[C,D,E,F] s)
        <float[4,4,3,3] w, float[4,1,3,3] d, float[4,4,1,1] v, float[4,6] m, float[6] b> {
        h = Conv <pads=[1,1,1,1]> (x, w) r = Relu (h) c = Conv <pads=[1,1,1,1], group=4> (r, d) e = Conv (c, v)
        s = Add (e, r) p = GlobalAveragePool (s) f = Flatten (p) y = Gemm (f, m, b) }"""
    rng = np.random.default_rng(0)
    large = {n: rng.choice([-0.9, 1.0], s) for n, s in (("w", (4, 4, 3, 3)), ("v", (4, 4, 1, 1)), ("m", (4, 6)))}
    model = graph(text, **{name: array.astype(np.float32) for name, array in large.items()})
    made = quantized(model, weight_pairs="off", **kinds)
    for feed in feeds(model, count=1, seed=3):
        agrees(made.quantized, feed)


def test_other_tensors_can_be_asked_for() -> None:
    text = "(uint8[2,6] x) => (int32[A,B] y) { h = MatMulInteger (x, w) y = Add (h, h) }"
    model = kernel(text, w=codes(6, 5))
    with without_vnni(model, ["h", "y"]) as run:
        h, y = run({"x": inputs(2, 6)})
    np.testing.assert_array_equal(2 * h, y)


def test_what_cannot_be_computed_is_named() -> None:
    needs_version("1.24", "ConvInteger with weights of int8")
    text = "(int8[1,2,5,5] x) => (int32[A,B,C,D] y) { [c] y = ConvInteger (x, w) }"
    with without_vnni(kernel(text, w=inputs(3, 2, 3, 3))) as run, pytest.raises(ModelError, match="ConvInteger 'c'"):
        run({"x": codes(1, 2, 5, 5)})
