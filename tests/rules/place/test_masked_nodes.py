"""Masks are told by the graph: they and what they hide stay float, the products around them run on integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantized_models import graph, layout, placed
from text_models import normal, run, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.plan import Plan
from quark_onnx.graph.attention_masks import masks_of

ATTENTION = """(float[2,4,8] x, int64[2,4] mask) => (float[2,4,8] y) {
    q = MatMul (x, w) k = Transpose <perm = [0,2,1]> (x) s = MatMul (q, k)
    rows = Unsqueeze (mask, one) f = Cast <to = 1> (rows) b = Cast <to = 9> (rows) pad = Not (b) {HIDE}
    p = Softmax <axis = -1> (z) y = MatMul (p, x) }"""

INF = np.float32(np.inf)
CAUSAL = np.triu(np.full((4, 4), -INF), 1)
CONSTANTS = {
    "w": normal(8, 8) / 2,
    "one": np.array([1]),
    "unit": np.float32(1),
    "huge": np.float32(1e4),
    "low": np.float32(-1e9),
    "none": -INF,
    "least": np.finfo(np.float32).min,
    "zero": np.float32(0),
    "count": np.int64(0),
    "half": np.float32(0.5),
    "hundred": np.float32(100),
    "window": np.float32([[0, 0, -100, -100]] * 4),
    "causal": CAUSAL,
    "dims": np.array([2, 4, 4]),
}

HIDE = {
    "1 - mask times -1e9": "i = Sub (unit, f) m = Mul (i, low) z = Add (s, m)",
    "mask - 1 times 1e4": "i = Sub (f, unit) m = Mul (huge, i) z = Add (m, s)",
    "subtracted": "i = Sub (unit, f) m = Mul (i, huge) z = Sub (s, m)",
    "negative": "i = Sub (unit, f) m = Mul (i, huge) n = Neg (m) z = Add (s, n)",
    "a branch of scores": "z = Where (b, s, none)",
    "a branch of a mask": "m = Where (pad, least, zero) z = Add (s, m)",
    "no number twice": "i = Sub (unit, f) c = Cast <to = 9> (i) m = Where (c, least, i) z = Add (s, m)",
    "expanded and sliced": """e = Expand (b, dims) m = Where (e, zero, none) u = Unsqueeze (m, one)
        r = Reshape (u, dims) z = Add (s, r)""",
    "a comparison": "c = Equal (rows, count) z = Where (c, low, s)",
    "clipped behind": "m = Where (b, zero, none) a = Add (s, m) z = Max (a, least)",
    "scaled behind": "m = Where (b, s, low) z = Mul (m, half)",
    "a cast": "m = Where (b, zero, low) h = Cast <to = 10> (m) g = Cast <to = 1> (h) z = Add (s, g)",
    "windows": "z = Add (s, window)",
    "filled": """d = Shape (s) l = ConstantOfShape <value = float[1] {-1e9}> (d) t = Trilu <upper = 1> (l, one_)
        z = Add (s, t)""",
    "causal and padding": "c = Where (b, causal, none) z = Add (s, c)",
    "scattered": "l = ConstantOfShape <value = float[1] {-1e9}> (dims) m = Where (b, zero, l) z = Add (s, m)",
    "a sum": "m = Where (b, zero, none) z = Sum (s, m)",
}
SOFTMAX = "p = Softmax <axis = -1> (z)"
BY_HAND = "t = ReduceMax <axes = [2]> (z) o = Sub (z, t) e_ = Exp (o) d_ = ReduceSum (e_, last) p = Div (e_, d_)"


def attention(hide: str, **more: Any) -> Any:
    return graph(ATTENTION.replace("{HIDE}", hide), **CONSTANTS, one_=np.int64(1), **more)


def check(plan: Plan) -> None:
    """The products run on integers; scores, masked scores and mask have no quantizer."""
    assert {"MatMul_q", "MatMul_s", "MatMul_y"} <= plan.nodes.keys()
    activations = {site.tensor for site in plan.sites.values() if site.role != "weight"}
    assert activations == {"x", "q", "k", "p"}, activations
    assert "a mask of" in plan.notes["Softmax_p"]


@pytest.mark.parametrize("way", HIDE)
def test_masks_and_what_they_hide_stay_float(way: str) -> None:
    plan = placed(attention(HIDE[way]))
    check(plan)
    assert plan.sites["p"].range == (0.0, 1.0)


def test_a_softmax_by_hand_hides_as_well() -> None:
    text = ATTENTION.replace(SOFTMAX, BY_HAND)
    plan = placed(graph(text.replace("{HIDE}", HIDE["1 - mask times -1e9"]), **CONSTANTS, last=np.array([-1])))
    assert {"MatMul_q", "MatMul_s", "MatMul_y"} <= plan.nodes.keys()
    assert not {"z", "m", "s", "o"} & plan.sites.keys()


SHOWN = {
    "temperature": "z = Mul (s, hundred)",
    "bias of positions": "z = Add (s, bias)",
    "clip": "z = Clip (s, low)",
    "largest": "z = Max (s, low)",
    "layer between": "a = Add (s, bias) l = Mul (f, low) c = MatMul (l, row) z = Add (a, c)",
    "condition alone": """e = Cast <to = 1> (b) g = Mul (e, low) o = Greater (g, bias) r = Cast <to = 1> (o)
        z = Add (s, r)""",
}


@pytest.mark.parametrize("way", SHOWN)
def test_what_hides_nothing_changes_nothing(way: str) -> None:
    model = attention(SHOWN[way], bias=normal(4, 4) * 10, row=normal(4, 4))
    assert not masks_of(model.graph).hidden
    assert "a mask of" not in str(placed(model).notes)


def test_a_number_that_meets_no_softmax_changes_nothing() -> None:
    """The nearest graphs: the same constant in front of a pool, of a sum of exponentials, of a Sigmoid."""
    head = "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w> { h = Conv (x, w) "
    for tail in (
        "p = Pad (h, ends, low) g = MaxPool <kernel_shape = [3,3]> (p) y = Conv (g, w) }",
        "a = Add (h, low) e = Sigmoid (a) y = Conv (e, w) }",
        "a = Add (h, low) e = Exp (a) y = Conv (e, w) }",
    ):
        model = graph(head + tail, ends=np.array([0, 0, 1, 1, 0, 0, 1, 1]), low=np.float32(-1e9))
        other = graph(head + tail, ends=np.array([0, 0, 1, 1, 0, 0, 1, 1]), low=np.float32(-1))
        assert layout(placed(model)) == layout(placed(other))
        assert placed(model).notes == placed(other).notes


ADDED = """(float[2,4,8] x, float[2,4] mask{MORE}) => (float[2,4,8] y) {
    q = MatMul (x, w) k = Transpose <perm = [0,2,1]> (x) s = MatMul (q, k) {HIDE}
    p = Softmax <axis = -1> (z) y = MatMul (p, x) }"""
MOVED = "u = Unsqueeze (mask, one) "


@pytest.mark.parametrize(
    "hide", [MOVED + "z = Add (u, s)", MOVED + "h = Mul (u, half) z = Add (s, h)", MOVED + "z = Sub (s, u)"]
)
def test_an_input_that_is_added_to_scores_is_a_mask(hide: str) -> None:
    plan = placed(graph(ADDED.replace("{HIDE}", hide).replace("{MORE}", ""), **CONSTANTS))
    check(plan)
    assert "a mask of -inf" in plan.notes["Softmax_p"]


@pytest.mark.parametrize(
    ("hide", "more"),
    [
        (MOVED + "z = Mul (s, u)", ""),
        (MOVED + "z = Add (u, v)", ", float[2,4,4] v"),
        (MOVED + "l = MatMul (u, causal) a = Add (s, u) z = Add (a, l)", ""),
        (MOVED + "l = Relu (u) z = Add (s, l)", ""),
    ],
    ids=["a factor", "two inputs", "read by a layer", "not moved"],
)
def test_other_inputs_are_none(hide: str, more: str) -> None:
    model = graph(ADDED.replace("{HIDE}", hide).replace("{MORE}", more), **CONSTANTS)
    assert not masks_of(model.graph).hidden


@pytest.mark.parametrize(("target", "activations"), [("qnn", "uint8"), ("vitisai", "int8")])
def test_targets_in_fixed_point_keep_exact_what_decides(target: str, activations: str) -> None:
    """1 - mask is 0 wherever nothing is padding: a grid of that would lose the mask."""
    plan = placed(attention(HIDE["1 - mask times -1e9"]), target=target, activation_type=activations)
    assert not {"i", "m", "z"} & plan.sites.keys()
    assert plan.notes["Sub_i"] == "a mask is made of 'i': no value of it may become another"
    assert plan.sites["p"].range is not None
    assert plan.sites["s"].role == "activation"


@pytest.mark.parametrize("way", ["1 - mask times -1e9", "a branch of a mask"])
def test_padding_is_hidden_that_calibration_has_not_seen(way: str) -> None:
    model = text_model("g " + ATTENTION.replace("{HIDE}", HIDE[way]), **CONSTANTS)
    padded = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    masks, noise = {"padded": padded, "whole": np.ones_like(padded)}, []
    data = {seen: [{"x": normal(2, 4, 8, seed=i), "mask": mask} for i in range(8)] for seen, mask in masks.items()}
    for feeds in data.values():
        made = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(model, None, feeds).model
        pairs = [(run(model, feed)[0], run(made, feed)[0]) for feed in data["padded"]]
        noise.append(sum(float(((a - b) ** 2).sum() / (a**2).sum()) for a, b in pairs) / len(pairs))
    assert noise[1] < 2 * noise[0] < 0.005
