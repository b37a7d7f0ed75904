"""fold-affine-forward and drop-neutral: constants in front of a layer that no layer behind them took, and those that
change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model

HEAD = "g (float[2,4,5] x) => (float[2,6,L] y) <float k = {1.5}, float[1] one = {1.0}, float zero = {0.0}> "


@pytest.mark.parametrize("affine", ["Mul (h, k)", "Mul (k, h)", "Add (h, k)", "Sub (h, k)", "Sub (k, h)", "Div (h, k)"])
def test_conv(affine: str) -> None:
    proto = text_model(f"{HEAD}{{ h = Relu (x) [a] i = {affine} y = Conv (i, w) }}", w=normal(6, 4, 3))
    result = prepared(proto)
    assert ops(result) == {"Relu": 1, "Conv": 1}
    assert applied(result, "fold-affine-forward") == ["a"]
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=25)


def test_padding_takes_a_factor() -> None:
    proto = text_model(f"{HEAD}{{ h = Relu (x) i = Mul (h, k) y = Conv <pads = [1, 1]> (i, w) }}", w=normal(6, 4, 3))
    result = prepared(proto)
    assert ops(result) == {"Relu": 1, "Conv": 1}
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=13)


def test_groups() -> None:
    proto = text_model(
        f"{HEAD}{{ h = Relu (x) i = Sub (k, h) y = Conv <group = 2> (i, w, b) }}", w=normal(6, 2, 3), b=normal(6)
    )
    result = prepared(proto)
    assert ops(result) == {"Relu": 1, "Conv": 1}
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=14)


@pytest.mark.parametrize("layer", ["MatMul (i, w)", "MatMul (w, i)", "Gemm (i, w, b)", "Gemm <transA = 1> (i, w, b)"])
def test_products(layer: str) -> None:
    text = f"g (float[4,4] x) => (float[4,4] y) <float k = {{1.5}}> {{ h = Relu (x) i = Mul (h, k) y = {layer} }}"
    proto = text_model(text, w=normal(4, 4), b=normal(4))
    result = prepared(proto)
    assert ops(result).keys() == {"Relu", layer.split()[0]}
    assert_same(proto, result, {"x": normal(4, 4)}, terms=5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "h = Relu (x) i = Add (h, k) y = Conv <pads = [1, 1]> (i, w)",
            "the Conv pads with zeros, which the shift would",
        ),
        ('h = Relu (x) i = Add (h, k) y = Conv <auto_pad = "SAME_UPPER"> (i, w)', "the Conv pads with zeros, which"),
        ("h = Sin (x) i = Add (h, k) y = Conv (i, w)", "the shift may be what brings the values near 0"),
        (
            "h = Relu (x) i = Mul (h, k) j = Conv (i, w) [s] l = Conv (i, w) y = Add (j, l)",
            "its only reader is not a Conv",
        ),
        ("h = Relu (x) i = Mul (h, c) y = Conv (i, w)", "it is not an affine function of one input, with one constant"),
        ("h = Exp (x) i = Div (k, h) y = Conv (i, w)", "it is not an affine function of one input, with one constant"),
        ("h = Relu (x) i = Mul (h, k) y = Conv (x, i)", "the weight is not a constant of floats"),
        ("h = Relu (x) i = Mul (h, k) y = Conv (i, u)", "the weight is not a constant of floats"),
        ("h = Relu (x) i = Mul (h, huge) y = Conv (i, w)", "a folded value is not finite in float32"),
    ],
)
def test_negative(body: str, reason: str) -> None:
    text = HEAD.replace("x)", "x, float[6,4,3] u)").replace("=> (", "=> (")
    arrays = {"w": normal(6, 4, 3), "c": normal(4, 1), "huge": np.float32(3e38)}
    result = prepared(text_model(f"{text}{{ {body} }}", **arrays))
    assert any(found.startswith(reason) for found in reasons(result, "fold-affine-forward"))
    assert applied(result, "fold-affine-forward") == []


def test_a_product_of_rank_3_takes_the_factor_alone() -> None:
    text = "g (float[2,4,4] x) => (float[2,4,6] y) <float k = {1.5}> { h = Relu (x) i = OP (h, k) y = MatMul (i, w) }"
    assert ops(prepared(text_model(text.replace("OP", "Mul"), w=normal(4, 6)))) == {"Relu": 1, "MatMul": 1}
    result = prepared(text_model(text.replace("OP", "Add"), w=normal(4, 6)))
    assert reasons(result, "fold-affine-forward") == ["the MatMul has no bias for the shift"]


def test_shifts_go_behind_the_product_with_a_gate() -> None:
    """And behind no other product."""
    text = HEAD + "{ s = Sigmoid (x) h = Mul (x, s) i = Add (h, k) y = Conv (i, w) }"
    assert ops(prepared(text_model(text, w=normal(6, 4, 3)))) == {"Sigmoid": 1, "Mul": 1, "Conv": 1}
    other = prepared(text_model(text.replace("Sigmoid", "Sin"), w=normal(6, 4, 3)))
    assert ops(other) == {"Sin": 1, "Mul": 1, "Add": 1, "Conv": 1}


def test_the_layer_in_front_comes_first() -> None:
    text = "g (float[2,4,5] x) => (float[2,6,L] y) <float k = {2.0}> { h = Conv (x, w) i = Mul (h, k) y = Conv (i, v) }"
    result = prepared(text_model(text, w=normal(4, 4, 1), v=normal(6, 4, 3)))
    assert applied(result, "fold-affine-forward") == []
    assert ops(result) == {"Conv": 2}


@pytest.mark.parametrize("body", ["Mul (h, one)", "Mul (one, h)", "Div (h, one)", "Add (zero, h)", "Sub (h, zero)"])
def test_what_changes_nothing_goes(body: str) -> None:
    proto = text_model(f"{HEAD}{{ h = Sin (x) [n] i = {body} j = Sigmoid (i) y = Mul (h, j) }}".replace("6,L", "4,5"))
    result = prepared(proto)
    assert ops(result) == {"Sin": 1, "Sigmoid": 1, "Mul": 1}
    assert applied(result, "drop-neutral") == ["n"]
    assert_same(proto, result, {"x": normal(2, 4, 5)}, terms=0)


@pytest.mark.parametrize(("node", "goes"), [("Conv (r, w)", ["n"]), ("Sin (r)", [])])
def test_a_convolution_has_the_axes_of_its_weight(node: str, goes: list[str]) -> None:
    """Of an input whose shape nobody knows, not even its rank: of other operators that is not known either."""
    text = "g (float[2,4,5,5] x, int64[N] d) => (float[A,B,C,D] y) <float[1] one = {1.0}> "
    body = f"{{ r = Reshape (x, d) h = {node} [n] i = Mul (h, one) y = Cos (i) }}"
    assert applied(prepared(text_model(text + body, w=normal(6, 4, 1, 1))), "drop-neutral") == goes


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Mul (h, k)", "it changes its input"),
        ("Mul (h, zero)", "it changes its input"),
        ("Add (h, one)", "it changes its input"),
        ("Div (one, h)", "it changes its input"),
        ("Sub (zero, h)", "it changes its input"),
        ("Mul (h, wide)", "it changes its input"),
    ],
)
def test_what_changes_something_stays(body: str, reason: str) -> None:
    """A constant of more axes makes an output of more axes."""
    proto = text_model(
        f"{HEAD}{{ h = Sin (x) i = {body} y = Cos (i) }}".replace("[2,6,L]", ""), wide=np.ones((1,) * 4, "f")
    )
    assert reason in reasons(prepared(proto), "drop-neutral")
    assert applied(prepared(proto), "drop-neutral") == []


def test_a_model_output_keeps_its_node() -> None:
    proto = text_model(
        "g (float[3] x) => (float[3] y, float[3] z) <float one = {1.0}> { y = Sin (x) z = Mul (y, one) }"
    )
    assert reasons(prepared(proto), "drop-neutral") == ["it gives a model output its name"]
