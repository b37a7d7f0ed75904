"""Activation functions: the values are onnxruntime's, the slopes are those of the values."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto
from onnx_text import parse_model

from quark_onnx.numerics.activation_functions import (
    EVERYWHERE,
    Activation,
    Clip,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    PRelu,
    Relu,
    Sigmoid,
    Tanh,
    erf,
)

SLOPES = np.array([[0.3, -0.2, 0.0]], np.float32)
CASES: dict[str, tuple[Activation, str]] = {
    "identity": (Activation(), "Identity(x)"),
    "relu": (Relu(), "Relu(x)"),
    "relu6": (Clip(0, 6), "Clip(x, zero, six)"),
    "hardtanh": (Clip(-1, 1), "Clip(x, minus, one)"),
    "leaky": (LeakyRelu(0.2), "LeakyRelu<alpha = 0.2>(x)"),
    "leaky 0": (LeakyRelu(0.0), "Relu(x)"),
    "prelu": (PRelu(SLOPES), "PRelu(x, slopes)"),
    "sigmoid": (Sigmoid(), "Sigmoid(x)"),
    "hardsigmoid": (HardSigmoid(), "HardSigmoid(x)"),
    "hardsigmoid, torch's": (HardSigmoid(1 / 6, 0.5), "HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)"),
    "hardswish": (HardSwish(), "HardSwish(x)"),
    "tanh": (Tanh(), "Tanh(x)"),
    "gelu": (Gelu(), "Gelu(x)"),
    "gelu tanh": (Gelu(tanh=True), 'Gelu<approximate = "tanh">(x)'),
}
by_case = pytest.mark.parametrize(("activation", "onnx"), CASES.values(), ids=CASES)

GRID = np.linspace(-8, 8, 2999, dtype=np.float32)  # meets neither a kink nor a bound of the functions but 0
POINTS = np.stack([GRID, -GRID, GRID * 0.1], -1)[None]  # (G = 1, n, R = 3)


def reference(expression: str, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes."""
    text = f"""<ir_version: 9, opset_import: ["": 20]>
    g (float[1,n,3] x) => (float[1,n,3] y)
    <float zero = {{0}}, float six = {{6}}, float one = {{1}}, float minus = {{-1}}, float[3] slopes = {{0.3, -0.2, 0}}>
    {{ y = {expression} }}"""
    model = parse_model(text)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


@by_case
def test_values_are_onnxruntimes(activation: Activation, onnx: str) -> None:
    """Both round some ten times at the size of x, and erf is off by 1.5e-7 here and as much there."""
    got = activation.value(POINTS)
    assert got.dtype == np.float32
    assert not np.shares_memory(got, POINTS)
    np.testing.assert_allclose(got, reference(onnx, POINTS), rtol=10 * 2.0**-23, atol=8 * 3e-7)


@by_case
def test_slopes_are_those_of_the_values(activation: Activation, onnx: str) -> None:
    """Central differences over h = 2⁻⁶: off by h²/6 times a third derivative below 2, and by rounding 8 · 2⁻²³ / h."""
    h = np.float32(2.0**-6)
    difference = (activation.value(POINTS + h) - activation.value(POINTS - h)) / (2 * h)
    bound = h**2 / 3 + 10 * 8 * 2.0**-23 / h
    kinks = [0.0, *activation.active, -3.0, 3.0, -2.5, 2.5]
    smooth = np.all([np.abs(POINTS - kink) > h for kink in kinks], axis=0)
    slope = activation.slope(POINTS)
    assert slope.dtype == np.float32
    assert np.abs(slope - difference)[smooth].max() <= bound


@by_case
def test_nothing_passes_outside_the_active_interval(activation: Activation, onnx: str) -> None:
    low, high = activation.active
    outside = (low > POINTS) | (high < POINTS)
    assert not activation.slope(POINTS)[outside].any()
    assert activation.slope(POINTS)[~outside].any()
    region = activation.region(0.5)
    assert region == (None if (low, high) == EVERYWHERE else (low - 0.5, high + 0.5))


@by_case
def test_rows_are_the_same_function_of_some_rows(activation: Activation, onnx: str) -> None:
    some = activation.rows(slice(1, 3))
    np.testing.assert_array_equal(some.value(POINTS[..., 1:]), activation.value(POINTS)[..., 1:])
    np.testing.assert_array_equal(some.slope(POINTS[..., 1:]), activation.slope(POINTS)[..., 1:])


def test_erf() -> None:
    x = np.linspace(-5, 5, 4001, dtype=np.float32)
    exact = np.array([math.erf(v) for v in x])
    assert np.abs(erf(x) - exact).max() <= 1.5e-7 + 8 * 2.0**-24  # its own error, and eight roundings below 1


@pytest.mark.parametrize("activation", [Sigmoid(), Tanh(), Gelu(), Gelu(tanh=True), HardSwish()])
def test_far_out_nothing_overflows(activation: Activation) -> None:
    far = np.array([-1e6, -200, 200, 1e6], np.float32).reshape(1, -1, 1)
    with np.errstate(under="ignore"):
        assert np.isfinite(activation.value(far)).all()
        assert np.isfinite(activation.slope(far)).all()
