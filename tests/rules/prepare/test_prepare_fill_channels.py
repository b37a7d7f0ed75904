"""fill-channels: depthwise convolutions get whole blocks of channels, and nothing that is computed changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import constants, settings
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model, weights

from quark_onnx.opened_job import open_job

HEAD = "g (float[2,4,5,5] x) => (float[2,3,5,5] y) "
DEEP = "[d] k = Conv <group = 12, pads = [1, 1, 1, 1]> (h, m, c) "
TAIL = " y = Conv (l, v) }"


def model(body: str, head: str = HEAD, **arrays: Any) -> onnx.ModelProto:
    arrays = {"w": normal(12, 4, 1, 1), "b": normal(12), "m": normal(12, 1, 3, 3), "c": normal(12)} | arrays
    return text_model(head + body, v=normal(3, 12, 1, 1), **arrays)


BODIES = {
    "plain": "{ h = Conv (x, w, b) " + DEEP + "l = Relu (k)" + TAIL,
    "no bias": "{ h = Conv (x, w) [d] k = Conv <group = 12, pads = [1, 1, 1, 1]> (h, m) l = Sigmoid (k)" + TAIL,
    "with a constant": "<float three = {3.0}> { h = Conv (x, w, b) "
    + DEEP
    + "u = Sigmoid (k) l = Add (u, three)"
    + TAIL,
    "squeezed and excited": "{ h = Conv (x, w, b) " + DEEP + "s = GlobalAveragePool (k) t = Conv (s, e) u = Relu (t) "
    "z = Conv (u, f, b) o = Sigmoid (z) l = Mul (k, o)" + TAIL,
    "residual": "{ h = Conv (x, w, b) " + DEEP + "i = Conv (k, q) l = Add (h, i)" + TAIL,
    "pooled": "{ h = Conv (x, w, b) " + DEEP + "l = MaxPool <kernel_shape = [1, 1]> (k)" + TAIL,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_channels_fill_whole_blocks(body: str) -> None:
    proto = model(body, e=normal(5, 12, 1, 1), f=normal(12, 5, 1, 1), q=normal(12, 12, 1, 1))
    result = prepared(proto, block=16)
    assert applied(result, "fill-channels") == ["d"]
    assert ops(result) == ops(prepared(proto))
    (deep,) = (node for node in result.model.graph if node.name == "d")
    assert deep.attributes.get_int("group", 1) == 16
    assert deep.outputs[0].shape[1] == 16
    assert all(12 not in array.shape for array in weights(result).values())
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=12)  # sums of 16 may be cut elsewhere than those of 12


def test_a_convolution_in_one_space_on_both_sides_gets_zeros_on_both() -> None:
    square = weights(prepared(model(BODIES["residual"], q=normal(12, 12, 1, 1)), block=16))["q"]
    np.testing.assert_array_equal(square[:12, :12], normal(12, 12, 1, 1))
    assert square.shape == (16, 16, 1, 1)
    assert not square[12:].any()
    assert not square[:, 12:].any()


@pytest.mark.parametrize(
    ("block", "fills"), [(1, 0), (4, 0), (5, 0), (7, 1), (8, 1), (16, 1), (18, 1), (24, 1), (26, 0)]
)
def test_no_more_than_half_is_empty_then(block: int, fills: int) -> None:
    """Nor more than half of a block: 12 channels are 2 of the third block of 5, and less than half of one of 26."""
    result = prepared(model(BODIES["plain"]), block=block)
    assert len(applied(result, "fill-channels")) == fills


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "{ h = Conv (x, w, b) " + DEEP + "l = Softmax <axis = 1> (k)" + TAIL,
            "Softmax 'Softmax_l' is not known to keep",
        ),
        (
            "{ h = Conv (x, w, b) " + DEEP + "u = Relu (k) l = Add (u, r)" + TAIL,
            "Add 'Add_l' has a constant per channel",
        ),
        ("{ h = Conv (x, w, b) " + DEEP + "l = Conv <group = 2> (k, j)" + TAIL, "'Conv_l' is a convolution in groups"),
        ("{ h = Concat <axis = 1> (x, x, x) " + DEEP + "l = Relu (k)" + TAIL, "Concat 'Concat_h' is not known to keep"),
        ("{ h = Conv (x, w, n) " + DEEP + "l = Relu (k)" + TAIL, "the bias of 'Conv_h' is computed at run time"),
        (
            "{ h = Conv (x, w, b) " + DEEP + "i, o = MaxPool <kernel_shape = [1, 1]> (k) f = Cast <to = 1> (o) "
            "l = Add (i, f)" + TAIL,
            "MaxPool 'MaxPool_i' is not known to keep",
        ),
        (
            "{ h = Conv (x, w, b) " + DEEP + "l = Relu (k) z = If (t) <then_branch = g1 () => (float[2,12,5,5] o1) "
            "{ o1 = Neg (k) }, else_branch = g2 () => (float[2,12,5,5] o2) { o2 = Abs (k) }> a = Add (l, z) "
            "y = Conv (a, v) }",
            "its channels are read inside a control-flow body",
        ),
    ],
)
def test_negative(body: str, reason: str) -> None:
    head = HEAD.replace("x)", "x, float[12] n, bool t)")
    proto = model(body, head, r=normal(12, 1, 1), j=normal(12, 6, 1, 1))
    result = prepared(proto, block=16)
    assert any(found.startswith(reason) for found in reasons(result, "fill-channels"))
    assert applied(result, "fill-channels") == []


def test_channels_that_leave_the_graph_stay() -> None:
    body = "{ h = Conv (x, w, b) [d] y = Conv <group = 12, pads = [1, 1, 1, 1]> (h, m, c) }"
    result = prepared(model(body, HEAD.replace("3,5,5", "12,5,5")), block=16)
    assert "its channels leave the graph, or their number is not known" in reasons(result, "fill-channels")
    text = "g (float[2,12,5,5] x) => (float[2,3,5,5] y) { k = Conv <group = 12> (x, m) l = Relu (k) y = Conv (l, v) }"
    result = prepared(text_model(text, m=normal(12, 1, 1, 1), v=normal(3, 12, 1, 1)), block=16)
    assert "its channels leave the graph, or their number is not known" in reasons(result, "fill-channels")


@pytest.mark.parametrize("name", ["w", "b", "m", "v"])
def test_channels_that_have_numbers_each_stay(name: str) -> None:
    """Of any of the layers: the first, the last, that between them."""
    result = prepared(model(BODIES["plain"]), block=16, numbered=[name])
    assert f"'{name}' has numbers for each of its channels" in reasons(result, "fill-channels")
    assert not applied(result, "fill-channels")
    assert applied(prepared(model(BODIES["plain"]), block=16, numbered=["x"]), "fill-channels") == ["d"]


def test_overrides_count_the_channels_that_the_model_has() -> None:
    numbers = [{"axis": 0, "scale": 0.01, "zero_point": 0}] * 12
    for overrides, channels in (({"m": numbers}, 12), ({"m": numbers[:1]}, 16)):
        job = open_job(model(BODIES["plain"]), settings(TensorQuantOverrides=overrides))
        assert constants(job.prepared)["m"].shape[0] == channels


def test_as_many_on_another_axis_are_no_channels() -> None:
    """A plane of 12 × 12, and 12 rows that are added to each of its channels."""
    head = "g (float[2,4,12,12] x, float[1,3,12] rows) => (float[2,3,12,12] y) "
    body = "{ h = Conv (x, w, b) " + DEEP + "[r] r = Conv (rows, one) l = Add (k, r)" + TAIL
    result = prepared(model(body, head, one=normal(12, 3, 1)), block=16)
    assert "'r' has channels on another axis" in reasons(result, "fill-channels")
    assert not applied(result, "fill-channels")
