"""fold-affine: Mul, Add, Sub and Div by constants behind a layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model, weights

CONV = "g (float[2,4,5] x) => (float[2,6,L] y) { [c] h = Conv (x, w) [a] y = "


@pytest.mark.parametrize("affine", ["Mul (h, k)", "Mul (k, h)", "Add (h, k)", "Add (k, h)", "Sub (h, k)", "Sub (k, h)"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1), (1, 6, 1), (1, 1, 1)])
def test_conv(affine: str, shape: tuple[int, ...]) -> None:
    proto = text_model(f"{CONV}{affine} }}", w=normal(6, 4, 3), k=normal(*shape, seed=5))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert applied(result, "fold-affine") == ["a"]
    assert next(iter(result.model.graph)).name == "c"
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=13)


def test_division() -> None:
    proto = text_model(f"{CONV}Div (h, k) }}", w=normal(6, 4, 3), k=abs(normal(6, 1)) + 1)
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=13)


@pytest.mark.parametrize(
    ("affine", "k", "reason"),
    [
        ("Div (k, h)", np.float32(2), "it divides by the layer's output"),
        ("Div (h, k)", np.float32(0), "a folded value is not finite in float32"),
        ("Mul (h, k)", np.float32(np.inf), "a folded value is not finite in float32"),
        ("Add (h, k)", normal(3), "the constant varies along another axis than that of output channels"),
        ("Add (h, k)", normal(2, 1, 1), "the constant varies along another axis than that of output channels"),
        ("Add (h, k)", normal(1, 1, 6, 1), "the constant has more axes than the output, or its rank is unknown"),
        ("Add (h, x0)", np.float32(0), "it is not a layer's output and a constant"),
    ],
)
def test_negative(affine: str, k: np.ndarray, reason: str) -> None:
    rank = max(3, k.ndim)
    text = f"{CONV}{affine} }}".replace("x)", "x, float x0)").replace("[2,6,L] y", f"[{'A,B,C,D'[: 2 * rank - 1]}] y")
    proto = text_model(text, w=normal(6, 4, 3), k=k)
    result = prepared(proto)
    assert len(ops(result)) == 2
    assert reasons(result, "fold-affine") == [reason]


def test_constant_that_widens_the_output() -> None:
    """One output channel plus a vector of five is five channels: not a Conv of one."""
    text = "g (float[1,4,5] x) => (float[1,5,L] y) { h = Conv (x, w) y = Add (h, k) }"
    proto = text_model(text, w=normal(1, 4, 3), k=normal(5, 1))
    result = prepared(proto)
    assert reasons(result, "fold-affine") == ["the constant widens the output"]
    assert_same(proto, result, {"x": normal(1, 4, 5)}, terms=0)


def fits(shape: list[int]) -> bool:
    """Whether the shape broadcasts with (2, 6, 1)."""
    return all(a in (1, b) or b == 1 for a, b in zip(shape[::-1], (1, 6, 2), strict=False))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 6]), max_size=4).filter(fits), st.sampled_from(["Mul", "Add"]))
def test_any_broadcast_keeps_the_outputs(shape: list[int], op: str) -> None:
    """Whatever the constant's shape, the rule is exact or refuses. The Conv's output is (2, 6, 1)."""
    output = "[A,B,C,D]" if len(shape) == 4 else "[A,B,C]"
    text = f"g (float[2,4,3] x) => (float{output} y) {{ h = Conv (x, w) y = {op} (h, k) }}"
    proto = text_model(text, w=normal(6, 4, 3), k=normal(*shape, seed=5))
    result = prepared(proto)
    folds = len(shape) <= 3 and [1] * (3 - len(shape)) + shape in ([1, 1, 1], [1, 6, 1])
    assert ops(result) == ({"Conv": 1} if folds else {"Conv": 1, op: 1})
    assert_same(proto, result, {"x": normal(2, 4, 3)}, terms=13)


def test_a_chain_folds_whole() -> None:
    text = "g (float[2,4,5] x) => (float[2,6,L] y) { h = Conv (x, w, b) i = Mul (h, k) j = Add (i, s) y = Div (j, d) }"
    proto = text_model(text, w=normal(6, 4, 3), b=normal(6), k=normal(6, 1), s=normal(6, 1, seed=4), d=np.float32(2))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert set(weights(result)) == {"w", "b"}
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=16)


def test_conv_transpose_with_groups() -> None:
    text = "g (float[1,4,5] x) => (float[1,6,L] y) { h = ConvTranspose <group = 2> (x, w) y = Mul (h, k) }"
    proto = text_model(text, w=normal(4, 3, 2), k=normal(6, 1))
    result = prepared(proto)
    assert ops(result) == {"ConvTranspose": 1}
    assert_same(proto, result, {"x": normal(1, 4, 5)}, terms=5)


@pytest.mark.parametrize("op", ["Mul", "Add"])
def test_gemm(op: str) -> None:
    text = f"g (float[2,4] x) => (float[2,6] y) {{ h = Gemm <alpha = 3.0, beta = 0.5> (x, w, b) y = {op} (h, k) }}"
    proto = text_model(text, w=normal(4, 6), b=normal(1, 6), k=normal(6, seed=7))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    assert_same(proto, result, {"x": normal(2, 4)}, terms=6)


@pytest.mark.parametrize("sides", ["x, w", "w, x"])
def test_matmul_scale(sides: str) -> None:
    """Columns of a right side, rows of a left one."""
    text = f"g (float[2,4,4] x) => (float[2,4,4] y) {{ h = MatMul ({sides}) y = Mul (h, k) }}"
    proto = text_model(text, w=normal(4, 4), k=normal(4) if sides == "x, w" else normal(4, 1))
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1}
    assert_same(proto, result, {"x": normal(2, 4, 4)}, terms=5)


def test_matmul_has_no_bias() -> None:
    text = "g (float[2,4,4] x) => (float[2,4,6] y) { h = MatMul (x, w) y = Add (h, k) }"
    proto = text_model(text, w=normal(4, 6), k=normal(6))
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1, "Add": 1}
    assert reasons(result, "fold-affine") == ["a MatMul has no bias"]


def test_other_readers() -> None:
    text = "g (float[2,4,5] x) => (float[2,6,L] y, float[2,6,L] z) { h = Conv (x, w) y = Mul (h, k) z = Relu (h) }"
    proto = text_model(text, w=normal(6, 4, 3), k=np.float32(2))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "Mul": 1, "Relu": 1}
    assert reasons(result, "fold-affine") == ["the output of the layer is read elsewhere"]


def test_square_is_not_an_affine() -> None:
    proto = text_model(f"{CONV}Mul (h, h) }}", w=normal(6, 4, 3))
    assert ops(prepared(proto)) == {"Conv": 1, "Mul": 1}


def test_integer_matmul_is_left() -> None:
    text = "g (int32[2,4] x) => (int32[2,6] y) { h = MatMul (x, w) y = Mul (h, k) }"
    proto = text_model(text, w=np.ones((4, 6), np.int32), k=np.int32(3))
    result = prepared(proto)
    assert reasons(result, "fold-affine") == ["the weight is not a constant of floats"]
