"""hard-swish, hard-sigmoid and scale-behind-clamp: gates as exporters write them, behind layers and elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from text_models import GATES, applied, assert_same, normal, ops, prepared, reasons, text_model, weights

HEAD = "g (float[2,4,5,5] x) => (float[2,6,5,5] y) <float three = {3.0}, float zero = {0.0}, float six = {6.0}, "
NUMBERS = "float sixth = {0.16666667}, float[1] one_six = {6.0}, float two = {2.0}, float minus = {-6.0}> "
ROOT = "{ [c] h = Conv (x, w, b) "

SWISH = {
    "as the operator": "[m] y = HardSwish (h) }",
    "with HardSigmoid": "g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (h) [m] y = Mul (h, g) }",
    "HardSigmoid first": "g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (h) [m] y = Mul (g, h) }",
    "torch, Paddle": "a = Add (h, three) g = Clip (a, zero, six) [m] p = Mul (h, g) y = Div (p, six) }",
    "operands turned": "a = Add (three, h) g = Clip (a, zero, six) [m] p = Mul (g, h) y = Mul (sixth, p) }",
    "gate divided": "a = Add (h, three) g = Clip (a, zero, six) d = Div (g, one_six) [m] y = Mul (h, d) }",
    "input divided": "a = Add (h, three) g = Clip (a, zero, six) d = Mul (h, sixth) [m] y = Mul (d, g) }",
    "two behind": "a = Add (h, three) g = Clip (a, zero, six) [m] p = Mul (h, g) q = Div (p, six) y = Mul (two, q) }",
    "other bounds": "a = Add (h, two) g = Clip (a, zero, six) [m] p = Mul (h, g) y = Mul (p, two) }",
}


def model(body: str, root: str = ROOT, **arrays: Any) -> onnx.ModelProto:
    arrays = {"w": 3 * normal(6, 4, 1, 1), "b": normal(6)} | arrays
    return text_model(HEAD + NUMBERS + root + body, **arrays)


@pytest.mark.parametrize("body", SWISH.values(), ids=SWISH)
def test_hard_swish_behind_a_layer_is_an_add_a_clip_and_a_mul(body: str) -> None:
    proto = model(body)
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 1, "Add": 1, "Clip": 1, "Mul": 1}
    assert applied(result, "hard-swish") == ["m"]
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


def test_the_layer_holds_the_root_of_the_factor() -> None:
    result = weights(prepared(model(SWISH["torch, Paddle"]), integers=GATES))
    np.testing.assert_allclose(result["w"], 3 * normal(6, 4, 1, 1) / 6**0.5, rtol=3e-7)
    assert sorted(round(float(v * 6**0.5), 5) for v in result.values() if v.ndim == 0) == [0, 3, 6]


@pytest.mark.parametrize("body", SWISH.values(), ids=SWISH)
@pytest.mark.parametrize("target", [(), ("Add", "Mul"), (*GATES, "HardSwish"), (*GATES, "HardSigmoid")])
def test_targets_that_clip_elsewhere_or_have_the_operator_keep_it(body: str, target: tuple[str, ...]) -> None:
    """Constants behind a Clip in front of nothing stay, too."""
    proto = model(body)
    assert ops(prepared(proto, integers=target)) == ops(prepared(proto))
    assert {"hard-swish", "hard-sigmoid"}.isdisjoint(o.rule for o in prepared(proto, integers=target).log)


def test_nothing_is_rewritten_unasked() -> None:
    proto = model(SWISH["as the operator"])
    assert ops(prepared(proto, integers=GATES, optimize=False)) == {"Conv": 1, "HardSwish": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Add (h, three) g = Clip (a, two, six) p = Mul (h, g) y = Div (p, six) }",
        "a = Add (h, three) g = Clip (a, zero, six) p = Mul (x6, g) y = Div (p, six) }",
        "a = Add (h, three) g = Clip (a, zero, six) p = Mul (h, g) y = Div (p, minus) }",
        "a = Sub (h, three) g = Clip (a, zero, six) p = Mul (h, g) y = Div (p, six) }",
        "a = Add (h, k) g = Clip (a, zero, six) p = Mul (h, g) y = Div (p, six) }",
        "g = HardSigmoid <alpha = -0.2> (h) y = Mul (h, g) }",
        "a = Add (h, three) g = Clip (a, zero) p = Mul (h, g) y = Div (p, six) }",
    ],
    ids=["from 2", "of another tensor", "negative", "less", "per channel", "falling", "open"],
)
def test_what_is_no_hard_swish_stays(body: str) -> None:
    proto = model(body.replace("x6", "h2"), ROOT.replace("h =", "h2 = Conv (x, w) [d] h ="), k=normal(6, 1, 1))
    result = prepared(proto, integers=GATES)
    assert ops(result)["Div"] + ops(result)["HardSigmoid"] == 1
    assert applied(result, "hard-swish") == []
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


def test_a_factor_stays_behind_where_the_output_of_the_layer_is_read_elsewhere() -> None:
    """The Div becomes a Mul: that runs on integers."""
    proto = model(SWISH["torch, Paddle"].replace("y = Div (p, six)", "q = Div (p, six) y = Add (q, h)"))
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 1, "Add": 2, "Clip": 1, "Mul": 2}
    np.testing.assert_array_equal(weights(result)["w"], 3 * normal(6, 4, 1, 1))
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


@pytest.mark.parametrize("body", ["[m] y = HardSwish (h) }", SWISH["with HardSigmoid"], SWISH["gate divided"]])
def test_without_a_layer_a_factor_stays_behind(body: str) -> None:
    proto = model(body, "{ i = Conv (x, w, b) h = Add (i, i) ")
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 1, "Add": 2, "Clip": 1, "Mul": 2}
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


def test_what_is_already_an_add_a_clip_and_a_mul_stays() -> None:
    proto = model("a = Add (h, three) g = Clip (a, zero, six) y = Mul (h, g) }")
    assert reasons(prepared(proto, integers=GATES), "hard-swish") == ["it is an Add, a Clip and a Mul already"]


def test_a_gate_that_is_read_elsewhere_stays() -> None:
    proto = model("g = HardSigmoid <alpha = 0.2> (h) p = Mul (h, g) y = Add (p, g) }")
    assert applied(prepared(proto, integers=GATES), "hard-swish") == []


@pytest.mark.parametrize(
    "body",
    [
        SWISH["gate divided"].replace("y = Mul (h, d)", "p = Mul (h, d) y = Add (p, d)"),
        SWISH["input divided"].replace("y = Mul (d, g)", "p = Mul (d, g) y = Add (p, d)"),
        SWISH["torch, Paddle"].replace("y = Div (p, six)", "q = Div (p, six) y = Add (p, q)"),
        SWISH["torch, Paddle"].replace("y = Div (p, six)", "q = Div (p, six) y = Add (a, q)"),
    ],
    ids=["gate", "input", "product", "sum"],
)
def test_parts_that_are_read_elsewhere_are_kept(body: str) -> None:
    """What is behind the product is the Div alone: without it there are an Add, a Clip and a Mul already."""
    proto = model(body)
    result = prepared(proto, integers=GATES)
    assert ops(result)["Div"] + ops(result)["Mul"] == 2
    assert applied(result, "hard-swish") == []
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


SIGMOID = "[g] s = HardSigmoid <alpha = 0.2, beta = 0.5> (h) y = Mul (x2, s) }"
BESIDE = "{ x2 = Conv (x, v) [c] h = Conv (x, w, b) "


def test_hard_sigmoid_behind_a_layer_is_a_clip() -> None:
    proto = model(SIGMOID, BESIDE, v=normal(6, 4, 1, 1))
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 2, "Clip": 1, "Mul": 1}
    assert applied(result, "hard-sigmoid") == ["g"]
    np.testing.assert_allclose(weights(result)["b"], 0.2 * normal(6) + 0.5, rtol=3e-7)
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


@pytest.mark.parametrize(
    ("body", "root", "reason"),
    [
        (SIGMOID.replace("Mul (x2, s)", "Add (h, s)"), BESIDE, "the output of the layer is read elsewhere"),
        ("[g] y = HardSigmoid (h) }", ROOT, "its output is a model output"),
        ("r = Sqrt (h) [g] s = HardSigmoid (r) y = Mul (r, x2) }", BESIDE, "no layer computes its input"),
        ("[g] s = HardSigmoid (h) y = Relu (s) }", "{ h = Conv (x, k) ", "the weight is not a constant of floats"),
        ("[g] s = HardSigmoid (h) y = Relu (s) }", "{ h = MatMul (x, u) ", "the layer has no bias for the offset"),
    ],
)
def test_hard_sigmoid_that_stays(body: str, root: str, reason: str) -> None:
    proto = model(body.replace("Mul (r, x2)", "Mul (x2, s)"), root, v=normal(6, 4, 1, 1), u=normal(5, 5))
    if "(x, k)" in root:
        proto.graph.input.append(onnx.helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [6, 4, 1, 1]))
    result = prepared(proto, integers=GATES)
    assert reasons(result, "hard-sigmoid") == [reason]


def test_hard_sigmoid_of_older_exporters_is_a_clip() -> None:
    """The shift goes into the layer as any other; the factor follows it through the Clip."""
    body = "a = Add (h, three) r = Clip (a, zero, six) [d] s = Div (r, six) y = Mul (x2, s) }"
    proto = model(body, BESIDE, v=normal(6, 4, 1, 1))
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 2, "Clip": 1, "Mul": 1}
    assert applied(result, "scale-behind-clamp") == ["d"]
    assert sorted(float(v) for v in weights(result).values() if v.ndim == 0) == [0, 1]
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=16)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("r = Relu (h) [d] y = Mul (r, minus) }", "it does not multiply by a positive number"),
        ("r = Relu (h) [d] s = Mul (r, two) y = Add (s, r) }", "it is not the only reader of a Relu or Clip"),
        ("r = Relu (h) [d] s = Mul (r, two) y = Add (s, h) }", "the output of the layer is read elsewhere"),
        ("q = Sqrt (h) r = Relu (q) [d] y = Mul (r, two) }", "no layer is in front of the clamp"),
        ("r = Clip (h, zero, big) [d] y = Mul (r, two) }", "a scaled bound is not finite"),
    ],
)
def test_factors_behind_a_clamp_that_stay(body: str, reason: str) -> None:
    result = prepared(model(body, big=np.float32(3e38)), integers=GATES)
    assert reason in reasons(result, "scale-behind-clamp")
    assert applied(result, "scale-behind-clamp") == []


def test_a_relu_with_a_factor_behind_it() -> None:
    proto = model("r = Relu (h) [d] y = Mul (r, two) }")
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 1, "Relu": 1}
    assert_same(proto, result, {"x": normal(2, 4, 5, 5)}, terms=5)
