"""matmul-add-gemm: rank-2 MatMul and Add become Gemm."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model


@pytest.mark.parametrize("add", ["Add (h, b)", "Add (b, h)"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5)])
def test_positive(add: str, shape: tuple[int, ...]) -> None:
    text = f"g (float[N,3] x) => (float[N,5] y) {{ [m] h = MatMul (x, w) [a] y = {add} }}"
    proto = text_model(text, w=normal(3, 5), b=np.asarray(normal(*shape, seed=2)))
    result = prepared(proto)
    assert [(node.op_type, node.name) for node in result.model.graph] == [("Gemm", "m")]
    assert applied(result, "matmul-add-gemm") == ["a"]
    assert_same(proto, result, {"x": normal(4, 3)}, terms=4)


def test_rank_found_by_inference() -> None:
    text = "g (float[2,3,2] x) => (float[2,5] y) { f = Flatten (x) h = MatMul (f, w) y = Add (h, b) }"
    proto = text_model(text, w=normal(6, 5), b=normal(5))
    result = prepared(proto)
    assert ops(result) == {"Flatten": 1, "Gemm": 1}
    assert_same(proto, result, {"x": normal(2, 3, 2)}, terms=7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[2,4,3] x) => (float[A,B,C] y) { h = MatMul (x, w) y = Add (h, b) }", "the MatMul is not known to be"),
        ("(float[4,3] x) => (float[A,B] y) { h = MatMul (x, w) y = Add (h, c) }", "the constant varies along another"),
        ("(float[3,4] x) => (float[A,B] y) { h = MatMul (v, x) y = Add (h, d) }", "the MatMul is not known to be"),
        ("(float[3] x) => (float[A] y) { h = MatMul (x, w) y = Add (h, b) }", "the MatMul is not known to be"),
        (
            "(float[4,3] x) => (float[A,B] y, float[A,B] h) { h = MatMul (x, w) y = Add (h, b) }",
            "the output of the MatMul is read elsewhere",
        ),
        ("(float[4,3] x) => (float[A,B] y) { r = Relu (x) y = Add (r, e) }", "it is not a MatMul's output"),
    ],
)
def test_negative(text: str, reason: str) -> None:
    shapes = {"w": (3, 5), "v": (5, 3), "b": (5,), "c": (4, 1), "d": (4,), "e": (3,)}
    result = prepared(text_model(f"g {text}", **{name: normal(*shape) for name, shape in shapes.items()}))
    assert ops(result)["Add"] == 1
    assert len(reasons(result, "matmul-add-gemm")) == 1
    assert reasons(result, "matmul-add-gemm")[0].startswith(reason)


def test_a_vector_times_a_batch_of_matrices() -> None:
    """The product is of rank 2, and yet not a Gemm."""
    text = "g (float[3] x) => (float[2,5] y) { h = MatMul (x, w) y = Add (h, b) }"
    proto = text_model(text, w=normal(2, 3, 5), b=normal(5))
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1, "Add": 1}
    assert_same(proto, result, {"x": normal(3)}, terms=0)


def test_unknown_rank() -> None:
    text = "g (float[N] x, int64[R] s) => (float[A,B,C] y) { r = Reshape (x, s) h = MatMul (r, w) y = Add (h, b) }"
    proto = text_model(text, w=normal(3, 5), b=normal(5))
    result = prepared(proto)
    assert ops(result) == {"Reshape": 1, "MatMul": 1, "Add": 1}
    assert_same(proto, result, {"x": normal(12), "s": np.array([2, 2, 3])}, terms=0)
