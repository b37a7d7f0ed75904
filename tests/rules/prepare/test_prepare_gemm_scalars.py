"""gemm-scalars: alpha and beta go into the constants."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model, weights

GEMM = "g (float[4,3] x, float[5] c) => (float[4,5] y) { [m] y = Gemm <alpha = 0.3, beta = 2.5> "


@pytest.mark.parametrize("inputs", ["(x, w, b)", "(x, w)"])
def test_constants(inputs: str) -> None:
    proto = text_model(f"{GEMM}{inputs} }}", w=normal(3, 5), b=normal(5))
    result = prepared(proto)
    assert applied(result, "gemm-scalars") == ["m"]
    assert not next(iter(result.model.graph)).attributes
    np.testing.assert_allclose(weights(result)["w"], 0.3 * normal(3, 5), rtol=1e-6)
    assert_same(proto, result, {"x": normal(4, 3), "c": normal(5)}, terms=4)


def test_what_is_not_constant_stays() -> None:
    proto = text_model(f"{GEMM}(x, w, c) }}", w=normal(3, 5))
    result = prepared(proto)
    assert list(next(iter(result.model.graph)).attributes) == ["beta"]
    assert reasons(result, "gemm-scalars") == []
    assert_same(proto, result, {"x": normal(4, 3), "c": normal(5)}, terms=4)


def test_no_constant_at_all() -> None:
    text = "g (float[4,3] x, float[3,5] v) => (float[4,5] y) { y = Gemm <alpha = 0.3> (x, v) }"
    result = prepared(text_model(text))
    assert reasons(result, "gemm-scalars") == ["what alpha multiplies is not a constant of floats"]


def test_ones_are_left_alone() -> None:
    result = prepared(text_model(f"{GEMM}(x, w) }}".replace("0.3", "1.0").replace("2.5", "1.0"), w=normal(3, 5)))
    assert reasons(result, "gemm-scalars") == ["alpha and beta are 1"]


def test_overflow_is_refused() -> None:
    proto = text_model(f"{GEMM}(x, w) }}".replace("0.3", "1e30"), w=np.full((3, 5), 1e30, np.float32))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1}
    np.testing.assert_array_equal(weights(result)["w"], np.full((3, 5), 1e30, np.float32))


def test_a_gemm_that_keeps_its_scalars_takes_nothing_else() -> None:
    text = "g (float[4,3] x, float[5] c) => (float[4,5] y) { h = Gemm <beta = 2.5> (x, w, c) y = Mul (h, k) }"
    proto = text_model(text, w=normal(3, 5), k=np.float32(2))
    result = prepared(proto)
    assert reasons(result, "fold-affine") == ["its alpha or beta is not 1"]


def test_shared_weight() -> None:
    text = "g (float[4,3] x) => (float[4,5] y, float[4,5] z) { y = Gemm <alpha = 2.0> (x, w) z = MatMul (x, w) }"
    proto = text_model(text, w=normal(3, 5))
    result = prepared(proto)
    assert_same(proto, result, {"x": normal(4, 3)}, terms=4)
