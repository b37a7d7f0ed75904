"""Counted work: multiply-adds of layers and values of other operators, by the sizes that a run shows."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import feeds, graph

from quark_onnx.stages.protect.integer_work import Work, work_of


def counted(text: str) -> Work:
    model = graph(text)
    return work_of(model, [node.name or "" for node in model.graph], feeds(model, 1)[0])


@pytest.mark.parametrize(
    ("text", "products"),
    [
        ("(float[1,6,8,8] x) => (float[1,4,6,6] y) <float[4,3,3,3] w> { y = Conv <group = 2> (x, w) }", 4 * 36 * 27),
        ("(float[2,5] x) => (float[2,7] y) <float[5,7] w> { y = Gemm (x, w) }", 14 * 5),
        ("(float[2,5] x) => (float[2,7] y) <float[7,5] w> { y = Gemm <transB = 1> (x, w) }", 14 * 5),
        ("(float[3,2,5] x, float[5,7] v) => (float[3,2,7] y) { y = MatMul (x, v) }", 42 * 5),
        # each of 128 values takes the one of the four taps that its step meets, in 4 channels
        (
            "(float[1,4,4,4] x) => (float[1,2,8,8] y) <float[4,2,2,2] w> { y = ConvTranspose <strides=[2,2]> (x, w) }",
            128 * 4,
        ),
    ],
)
def test_products_of_layers(text: str, products: int) -> None:
    work = counted(text)
    assert (list(work.products.values()), work.values) == ([products], {})


def test_weights_that_are_computed_count_as_others_do() -> None:
    """Their sizes are those of the run: shape inference does not know them."""
    text = """(float[1,3,8,8] x, float[24] f, int64[4] s) => (float[1,2,7,7] y)
        { w = Reshape (f, s)  y = Conv (x, w) }"""
    model = graph(text)
    feed = {"x": np.ones((1, 3, 8, 8), np.float32), "f": np.ones(24, np.float32), "s": np.array([2, 3, 2, 2])}
    work = work_of(model, ["Conv_y"], feed)
    assert (work.products, work.values) == ({"Conv_y": 98 * 12}, {})


def test_an_operator_whose_first_output_is_left_out() -> None:
    text = """(float[3,1,4] x) => (float[1,1,5] h) <float[1,20,4] w, float[1,20,5] r>
        { "", h = LSTM <hidden_size = 5> (x, w, r) }"""
    assert list(counted(text).values.values()) == [5]


def test_time_falls_with_what_is_on_integers() -> None:
    text = "(float[1,6,8,8] x) => (float[1,4,8,8] y) <float[4,6,1,1] w> { h = Conv (x, w) y = Add (h, h) }"
    work = counted(text)
    assert work.on_integers(["Conv_h"]) == 256 * 6 and work.on_integers(["Add_y"]) == 0
    assert work.time([]) > work.time(["Add_y"]) > work.time(["Conv_h", "Add_y"])
