"""fold-bn-forward: BatchNormalization in front of Conv, Gemm and MatMul."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import applied, assert_same, batchnorm, normal, ops, prepared, reasons, text_model

BN = "[bn] h = BatchNormalization (x, gamma, beta, mean, var)"


def unshifted(channels: int) -> dict[str, np.ndarray]:
    zeros = np.zeros(channels, np.float32)
    return batchnorm(channels) | {"beta": zeros, "mean": zeros}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_conv_groups(groups: int, inputs: int, outputs: int, biased: bool) -> None:
    """`inputs` and `outputs` are channels per group."""
    cin, cout = groups * inputs, groups * outputs
    text = f"g (float[1,{cin},5] x) => (float[1,{cout},L] y) {{ {BN} y = Conv <group = {groups}> (h, w"
    constants = {"w": normal(cout, inputs, 2), **batchnorm(cin)} | ({"b": normal(cout, seed=2)} if biased else {})
    proto = text_model(f"{text}{', b' if biased else ''}) }}", **constants)
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert applied(result, "fold-bn-forward") == ["bn"]
    assert_same(proto, result, {"x": normal(1, cin, 5)}, terms=2 * inputs + 2)


@pytest.mark.parametrize("padding", ["pads = [1, 1]", 'auto_pad = "SAME_UPPER"'])
def test_padded_conv(padding: str) -> None:
    """Zeros around the image are not shifted: only a BatchNormalization without shift may go."""
    text = f"g (float[1,4,5] x) => (float[1,6,L] y) {{ {BN} y = Conv <{padding}> (h, w) }}"
    proto = text_model(text, w=normal(6, 4, 3), **batchnorm(4))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn-forward") == ["the Conv pads with zeros, which the shift would not reach"]
    proto = text_model(text, w=normal(6, 4, 3), **unshifted(4))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert_same(proto, result, {"x": normal(1, 4, 5)}, terms=12)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b: int) -> None:
    gemm = f"Gemm <alpha = 0.5, beta = 2.0, transB = {trans_b}> (h, w, b)"
    text = f"g (float[4,3] x) => (float[4,5] y) {{ {BN} y = {gemm} }}"
    proto = text_model(text, w=normal(5, 3) if trans_b else normal(3, 5), b=normal(5), **batchnorm(3))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    assert_same(proto, result, {"x": normal(4, 3)}, terms=5)


def test_transposed_gemm_is_left() -> None:
    text = f"g (float[3,3] x) => (float[3,5] y) {{ {BN} y = Gemm <transA = 1> (h, w) }}"
    result = prepared(text_model(text, w=normal(3, 5), **batchnorm(3)))
    assert ops(result) == {"Gemm": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn-forward") == ["the Gemm transposes its data"]


def test_matmul_of_rank_2_becomes_gemm() -> None:
    text = f"g (float[N,3] x) => (float[N,5] y) {{ {BN} y = MatMul (h, w) }}"
    proto = text_model(text, w=normal(3, 5), **batchnorm(3))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    assert_same(proto, result, {"x": normal(4, 3)}, terms=5)


def test_matmul_with_constant_left_side() -> None:
    """Axis 1 of a rank-3 right side is the one summed over; there is no bias for a shift."""
    text = f"g (float[2,3,N] x) => (float[2,5,N] y) {{ {BN} y = MatMul (w, h) }}"
    proto = text_model(text, w=normal(5, 3), **unshifted(3))
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1}
    assert_same(proto, result, {"x": normal(2, 3, 4)}, terms=5)
    result = prepared(text_model(text, w=normal(5, 3), **batchnorm(3)))
    assert reasons(result, "fold-bn-forward") == ["the MatMul has no bias for the shift"]


def test_matmul_that_sums_over_another_axis() -> None:
    text = f"g (float[2,3,3] x) => (float[2,3,5] y) {{ {BN} y = MatMul (h, w) }}"
    result = prepared(text_model(text, w=normal(3, 5), **batchnorm(3)))
    assert reasons(result, "fold-bn-forward") == ["axis 1 is not the axis that the MatMul sums over"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[1,6,L] y, float[1,4,5] h) { BN y = Conv (h, w) }", "its only reader is not a Conv, Gemm or MatMul"),
        ("(float[1,4,5] y) { BN y = Relu (h) }", "its only reader is not a Conv, Gemm or MatMul"),
        ("(float[1,6,L] y) { BN y = Conv (h, w5) }", "the number of channels is not the layer's"),
        ("(float[1,6,L] y) { BN y = Conv (h, w0) }", "the weight is not a constant of floats"),
    ],
)
def test_negative(text: str, reason: str) -> None:
    text = f"g (float[1,4,5] x, float[6,4,3] w0) => {text.replace('BN', BN)}"
    result = prepared(text_model(text, w=normal(6, 4, 3), w5=normal(6, 5, 3), **batchnorm(4)))
    assert ops(result)["BatchNormalization"] == 1
    assert reasons(result, "fold-bn-forward") == [reason]


def test_the_layer_before_comes_first() -> None:
    """Between two layers the BatchNormalization goes into the first: its weight is scaled per output channel."""
    text = f"g (float[1,4,5] z) => (float[1,6,L] y) {{ [a] x = Conv (z, v) {BN} [b] y = Conv (h, w) }}"
    proto = text_model(text, v=normal(4, 4, 1, seed=3), w=normal(6, 4, 3), **batchnorm(4))
    result = prepared(proto)
    assert applied(result, "fold-bn") == ["bn"]
    assert applied(result, "fold-bn-forward") == []
    assert_same(proto, result, {"z": normal(1, 4, 5)}, terms=48)
