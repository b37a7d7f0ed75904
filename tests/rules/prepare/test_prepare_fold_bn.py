"""fold-bn: BatchNormalization behind Conv, ConvTranspose, Gemm and MatMul."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import applied, assert_same, batchnorm, normal, ops, prepared, reasons, run, text_model, weights

BN = "y = BatchNormalization <epsilon: float = 0.01> (h, gamma, beta, mean, var)"


def conv(bias: str = "") -> str:
    return f"g (float[1,4,6,6] x) => (float[1,6,H,W] y) {{ [c] h = Conv <pads = [1,1,1,1]> (x, w{bias}) [bn] {BN} }}"


@pytest.mark.parametrize("biased", [False, True])
def test_conv(biased: bool) -> None:
    constants = {"w": normal(6, 4, 3, 3), **batchnorm(6)} | ({"b": normal(6, seed=2)} if biased else {})
    proto = text_model(conv(", b" if biased else ""), **constants)
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert applied(result, "fold-bn") == ["bn"]
    assert next(iter(result.model.graph)).name == "c"
    assert set(weights(result)) == {"w", "b" if biased else "c_bias"}
    assert_same(proto, result, {"x": normal(1, 4, 6, 6)}, terms=36)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["Conv", "ConvTranspose"]), *[st.integers(1, 3)] * 3, st.booleans())
def test_groups(op: str, groups: int, inputs: int, outputs: int, biased: bool) -> None:
    """`inputs` and `outputs` are channels per group."""
    total = groups * outputs
    shape = (total, inputs, 2) if op == "Conv" else (groups * inputs, outputs, 2)
    constants = {"w": normal(*shape), **batchnorm(total)} | ({"b": normal(total, seed=2)} if biased else {})
    text = f"g (float[2,{groups * inputs},5] x) => (float[2,{total},L] y) {{ h = {op} <group = {groups}> (x, w"
    proto = text_model(f"{text}{', b' if biased else ''}) {BN} }}", **constants)
    result = prepared(proto)
    assert ops(result) == {op: 1}
    assert_same(proto, result, {"x": normal(2, groups * inputs, 5)}, terms=2 * inputs + 2)


@pytest.mark.parametrize("bias_shape", [None, (), (1,), (5,), (1, 5)])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b: int, bias_shape: tuple[int, ...] | None) -> None:
    constants = {"w": normal(5, 3) if trans_b else normal(3, 5), **batchnorm(5)}
    constants |= {} if bias_shape is None else {"b": np.asarray(normal(*bias_shape, seed=2))}
    gemm = f"Gemm <alpha = 0.5, beta = 2.0, transA = 1, transB = {trans_b}> (x, w{'' if bias_shape is None else ', b'})"
    proto = text_model(f"g (float[3,N] x) => (float[N,5] y) {{ h = {gemm} {BN} }}", **constants)
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    assert_same(proto, result, {"x": normal(3, 4)}, terms=5)


def test_gemm_with_a_bias_per_row_is_left() -> None:
    text = f"g (float[4,3] x) => (float[4,5] y) {{ h = Gemm (x, w, b) {BN} }}"
    result = prepared(text_model(text, w=normal(3, 5), b=normal(4, 1), **batchnorm(5)))
    assert ops(result) == {"Gemm": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn") == ["the bias is not one value per output channel"]


def test_matmul_of_rank_2_becomes_gemm() -> None:
    text = f"g (float[N,3] x) => (float[N,5] y) {{ [m] h = MatMul (x, w) {BN} }}"
    proto = text_model(text, w=normal(3, 5), **batchnorm(5))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    assert next(iter(result.model.graph)).name == "m"
    assert_same(proto, result, {"x": normal(4, 3)}, terms=5)


def test_matmul_with_constant_left_side() -> None:
    """Rows of W are the output channels; the shift stays as an Add under the name of the BatchNormalization."""
    text = f"g (float[2,3,N] x) => (float[2,5,N] y) {{ [m] h = MatMul (w, x) [bn] {BN} }}"
    proto = text_model(text, w=normal(5, 3), **batchnorm(5))
    result = prepared(proto)
    assert [(node.op_type, node.name) for node in result.model.graph] == [("MatMul", "m"), ("Add", "bn")]
    assert_same(proto, result, {"x": normal(2, 3, 4)}, terms=5)


def test_matmul_without_shift_needs_no_add() -> None:
    parameters = batchnorm(5) | {"beta": np.zeros(5, np.float32), "mean": np.zeros(5, np.float32)}
    text = f"g (float[2,3,N] x) => (float[2,5,N] y) {{ h = MatMul (w, x) {BN} }}"
    proto = text_model(text, w=normal(5, 3), **parameters)
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1}
    assert_same(proto, result, {"x": normal(2, 3, 4)}, terms=5)


def test_matmul_of_rank_3_has_channels_elsewhere() -> None:
    text = f"g (float[2,5,3] x) => (float[2,5,5] y) {{ h = MatMul (x, w) {BN} }}"
    result = prepared(text_model(text, w=normal(3, 5), **batchnorm(5)))
    assert ops(result) == {"MatMul": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn") == ["axis 1 is not the layer's axis of output channels"]


def test_shared_weight_is_not_changed_for_the_other_reader() -> None:
    text = f"g (float[1,4,6] x) => (y, float[1,6,L] z) {{ h = Conv (x, w) z = Conv (x, w) {BN} }}"
    proto = text_model(text.replace("(y,", "(float[1,6,L] y,"), w=normal(6, 4, 3), **batchnorm(6))
    result = prepared(proto)
    assert ops(result) == {"Conv": 2}
    np.testing.assert_array_equal(weights(result)["w"], normal(6, 4, 3))
    assert_same(proto, result, {"x": normal(1, 4, 6)}, terms=12)


def test_shared_batchnorm_parameters() -> None:
    text = f"""g (float[1,6,6] x) => (float[1,6,L] y) {{
        a = Conv (x, w) b = BatchNormalization <epsilon: float = 0.01> (a, gamma, beta, mean, var)
        h = Conv (b, w) {BN} }}"""
    proto = text_model(text, w=normal(6, 6, 1), **batchnorm(6))
    result = prepared(proto)
    assert ops(result) == {"Conv": 2}
    assert_same(proto, result, {"x": normal(1, 6, 6)}, terms=36)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_stay(dtype: type) -> None:
    kind = {np.float16: "float16", np.float64: "double"}[dtype]
    text = f"g ({kind}[2,4] x) => ({kind}[2,6] y) {{ h = Gemm (x, w) {BN} }}"  # onnxruntime has no Conv of doubles
    proto = text_model(text, w=normal(4, 6, dtype=dtype), **batchnorm(6, dtype=dtype))
    result = prepared(proto)
    assert {array.dtype for array in weights(result).values()} == {np.dtype(dtype)}
    assert_same(proto, result, {"x": normal(2, 4, dtype=dtype)}, terms=4)


def test_half_precision_overflow_is_refused() -> None:
    tiny = batchnorm(6, dtype=np.float16) | {"gamma": np.full(6, 6e4, np.float16), "var": np.zeros(6, np.float16)}
    text = f"g (float16[1,4,6] x) => (float16[1,6,L] y) {{ h = Conv (x, w) {BN} }}"
    result = prepared(text_model(text, w=normal(6, 4, 3, dtype=np.float16), **tiny))
    assert ops(result) == {"Conv": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn") == ["a folded value is not finite in float16"]


def test_not_finite_parameters_are_refused() -> None:
    text = conv().replace("0.01", "0.0")
    proto = text_model(text, w=normal(6, 4, 3, 3), **(batchnorm(6) | {"var": np.zeros(6, np.float32)}))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn") == ["variance + epsilon is not positive, or a parameter is not finite"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[1,6,L] y, float[1,6,L] h) { h = Conv (x, w) " + BN, "the output of the layer is read elsewhere"),
        (
            "(float[1,6,L] y, float[A,B,C] z) { h = Conv (x, w) z = Neg (h) " + BN,
            "the output of the layer is read elsewhere",
        ),
        ("(float[1,6,L] y) { v = Abs (w0) h = Conv (x, v) " + BN, "the weight is not a constant of floats"),
        ("(float[1,6,L] y) { h = Conv (x, w, b0) " + BN, "the bias is not constant"),
        ("(float[1,6,L] y) { i = Conv (x, w) h = Relu (i) " + BN, "Relu is not a layer with a weight"),
        ("(float[1,6,L] y) { h = Conv (x, w) " + BN.replace("beta,", "b0,"), "a parameter is not a constant vector"),
    ],
)
def test_negative(text: str, reason: str) -> None:
    signature = "g (float[1,4,6] x, float[6,4,3] w0, float[6] b0) => "
    proto = text_model(f"{signature}{text} }}", w=normal(6, 4, 3), **batchnorm(6))
    result = prepared(proto)
    assert ops(result)["BatchNormalization"] == 1
    assert reasons(result, "fold-bn") == [reason]
    assert_same(proto, result, {"x": normal(1, 4, 6), "w0": normal(6, 4, 3), "b0": normal(6)}, terms=0)


def test_training_mode_is_left() -> None:
    bn = "y, m, v = BatchNormalization <training_mode = 1> (h, gamma, beta, mean, var)"
    text = f"g (float[1,4,6] x) => (float[1,6,L] y, float[6] m) {{ h = Conv (x, w) {bn} }}"
    result = prepared(text_model(text, w=normal(6, 4, 3), **batchnorm(6)))
    assert ops(result) == {"Conv": 1, "BatchNormalization": 1}
    assert reasons(result, "fold-bn") == ["it is in training mode"]


def test_training_mode_of_old_operator_sets_is_left() -> None:
    """Before opset 14 a BatchNormalization with five outputs is one in training mode."""
    bn = "y, m, v, sm, sv = BatchNormalization (h, gamma, beta, mean, var)"
    text = f"g (float[1,4,6] x) => (float[1,6,L] y) {{ h = Conv (x, w) {bn} }}"
    result = prepared(text_model(text, opset=13, ir_version=7, w=normal(6, 4, 3), **batchnorm(6)))
    assert reasons(result, "fold-bn") == ["it has outputs of the training mode"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("h = Conv (x, w)", "its parameters have different sizes"),
        ("h = Conv (x, w7)", "axis 1 is not the layer's axis of output channels"),
        ("h = Conv <group = 4> (x, w7)", "its groups do not divide its channels"),
        ("h = ConvTranspose <group = 0> (x, w)", "its groups do not divide its channels"),
        ("h = Conv (x, w, b7)", "the bias is not one value per output channel"),
    ],
)
def test_models_that_nobody_can_run_do_not_stop_us(nodes: str, reason: str) -> None:
    """onnx.checker does not look at sizes: what does not fit is left to onnxruntime to refuse."""
    wrong = {"w7": normal(7, 4, 3), "b7": normal(7)}
    wrong |= {"beta": normal(5)} if "different" in reason else {}
    text = f"g (float[A,B,C] x) => (float[D,E,F] y) {{ {nodes} {BN} }}"
    result = prepared(text_model(text, w=normal(6, 4, 3), **(batchnorm(6) | wrong)))
    assert reasons(result, "fold-bn") == [reason]


def test_read_inside_a_control_flow_body() -> None:
    """The body reads the Conv's own output: it must stay what it is."""
    text = f"""g (float[1,4,6] x, bool k) => (float[1,6,L] y, float[1,6,L] z) {{
        h = Conv (x, w) {BN}
        z = If (k) <then_branch = t () => (float[1,6,L] p) {{ p = Relu (h) }},
                    else_branch = e () => (float[1,6,L] q) {{ q = Neg (h) }}> }}"""
    proto = text_model(text, w=normal(6, 4, 3), **batchnorm(6))
    result = prepared(proto)
    assert ops(result)["BatchNormalization"] == 1
    assert_same(proto, result, {"x": normal(1, 4, 6), "k": np.array(True)}, terms=0)


def test_folded_output_read_inside_a_body() -> None:
    text = f"""g (float[1,4,6] x, bool k) => (float[1,6,L] z) {{
        h = Conv (x, w) {BN}
        z = If (k) <then_branch = t () => (float[1,6,L] p) {{ p = Relu (y) }},
                    else_branch = e () => (float[1,6,L] q) {{ q = Neg (y) }}> }}"""
    proto = text_model(text, w=normal(6, 4, 3), **batchnorm(6))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "If": 1}
    for k in (True, False):
        assert_same(proto, result, {"x": normal(1, 4, 6), "k": np.array(k)}, terms=12)


def test_without_optimization_nothing_is_folded() -> None:
    proto = text_model(conv(), w=normal(6, 4, 3, 3), **batchnorm(6))
    result = prepared(proto, optimize=False)
    assert ops(result) == {"Conv": 1, "BatchNormalization": 1}
    assert_same(proto, result, {"x": normal(1, 4, 6, 6)}, terms=0)


def test_empty_weight() -> None:
    text = f"g (float[1,0,6] x) => (float[1,6,L] y) {{ h = Conv (x, w) {BN} }}"
    result = prepared(text_model(text, w=np.zeros((6, 0, 3), np.float32), **batchnorm(6)))
    assert reasons(result, "fold-bn") == ["the weight is empty or a vector"]


def test_graph_output_in_the_middle_keeps_its_name() -> None:
    text = f"g (float[1,4,6] x) => (float[1,6,L] y, float[1,6,L] z) {{ h = Conv (x, w) {BN} z = Relu (y) }}"
    proto = text_model(text, w=normal(6, 4, 3), **batchnorm(6))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "Relu": 1}
    y, z = run(result.model, {"x": normal(1, 4, 6)})
    np.testing.assert_array_equal(np.maximum(y, 0), z)
