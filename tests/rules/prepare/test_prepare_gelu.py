"""gelu: both forms of Gelu as exporters write them, and the operator set that has the operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import GATES, applied, assert_same, normal, ops, prepared, text_model

HEAD = "g (float[1,4,5,5] x) => (float[1,4,5,5] y) <float one = {1.0}, float half = {0.5}, float root = {1.4142135}, "
NUMBERS = (
    "float c = {0.044715}, float[1] p = {0.7978845608}, float three = {3.0}, float two = {2.0}> { h = Conv (x, w) "
)
TAIL = " y = Conv (g, w) }"

ERF = {
    "torch": "d = Div (h, root) e = Erf (d) a = Add (e, one) m = Mul (h, a) g = Mul (m, half)",
    "half first": "m = Mul (h, half) d = Div (h, root) e = Erf (d) a = Add (one, e) g = Mul (m, a)",
    "half last": "d = Div (h, root) e = Erf (d) a = Add (e, one) m = Mul (a, half) g = Mul (m, h)",
    "divided": "d = Div (h, root) e = Erf (d) a = Add (e, one) m = Mul (h, a) g = Div (m, two)",
}
TANH = {
    "torch": "q = Pow (h, three) t = Mul (q, c) s = Add (h, t) i = Mul (s, p) e = Tanh (i) a = Add (e, one) "
    "m = Mul (h, half) g = Mul (m, a)",
    "jax": "k = Mul (c, h) l = Mul (h, k) t = Mul (h, l) s = Add (h, t) i = Mul (p, s) e = Tanh (i) a = Add (one, e) "
    "m = Mul (half, a) g = Mul (h, m)",
    "square": "k = Mul (h, h) t = Mul (k, c) s = Add (t, one) j = Mul (h, p) i = Mul (j, s) e = Tanh (i) "
    "a = Add (e, one) m = Mul (a, half) g = Mul (m, h)",
}


def model(body: str, opset: int = 17) -> onnx.ModelProto:
    return text_model(HEAD + NUMBERS + body + TAIL, opset, w=normal(4, 4, 1, 1))


@pytest.mark.parametrize("body", [*ERF.values(), *TANH.values()], ids=[*ERF, *(f"tanh, {name}" for name in TANH)])
@pytest.mark.parametrize("opset", [17, 20])
def test_gelu_is_one_operator(body: str, opset: int) -> None:
    proto = model(body, opset)
    result = prepared(proto, integers=GATES)
    assert ops(result) == {"Conv": 2, "Gelu": 1}
    assert result.model.opset_imports[""] == 20
    (node,) = (node for node in result.model.graph if node.op_type == "Gelu")
    assert node.attributes.get_string("approximate", "none") == ("tanh" if "Tanh" in body else "none")
    assert_same(proto, result, {"x": normal(1, 4, 5, 5)}, terms=16)


def test_where_nothing_runs_on_integers_it_stays() -> None:
    result = prepared(model(ERF["torch"]))
    assert ops(result)["Erf"] == 1
    assert result.model.opset_imports[""] == 17


def test_behind_a_product_onnxruntime_sees_it_by_itself() -> None:
    """And no operator set is raised for it; a Gelu that it does not see brings the others along."""
    proto = model(ERF["torch"].replace("(h", "(j").replace("d =", "j = MatMul (h, v) d =", 1))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(5, 5), "v"))
    result = prepared(proto, integers=GATES)
    assert (ops(result)["Erf"], result.model.opset_imports[""]) == (1, 17)


def test_the_last_factor_does_not_go_into_the_layer_behind() -> None:
    """Without it onnxruntime would not see a Gelu. Another factor goes."""
    assert ops(prepared(model(ERF["torch"])))["Mul"] == 2
    result = prepared(model(ERF["torch"].replace("Add (e, one)", "Add (e, two)")))
    assert applied(result, "fold-affine-forward") == ["Mul_g"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("torch", "Mul (h, a)", "Mul (x, a)"),
        ("torch", "Add (e, one)", "Add (e, two)"),
        ("torch", "Mul (m, half)", "Mul (m, two)"),
        ("torch", "Div (h, root)", "Div (h, two)"),
        ("torch", "Div (h, root)", "Mul (h, root)"),
        ("torch", "Erf (d)", "Tanh (d)"),
        ("torch", "g =", "o = Add (a, m) n = Add (o, e) g1 ="),
        ("torch", "Erf (d)", "Sin (d)"),
    ],
)
def test_negative(name: str, old: str, new: str) -> None:
    body = ERF[name].replace(old, new)
    body = body.replace("g1 =", "g2 =") + (" g = Add (n, g2)" if "g1" in new else "")
    result = prepared(model(body), integers=GATES)
    assert ops(result)["Gelu"] == 0
    assert result.model.opset_imports[""] == 17


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Pow (h, three)", "Pow (h, two)"),
        ("Mul (q, c)", "Mul (q, half)"),
        ("Mul (s, p)", "Mul (s, half)"),
        ("Add (h, t)", "Add (x, t)"),
        ("Tanh (i)", "Erf (i)"),
    ],
)
def test_negative_tanh(old: str, new: str) -> None:
    assert ops(prepared(model(TANH["torch"].replace(old, new)), integers=GATES))["Gelu"] == 0


def test_five_digits_are_enough_and_four_are_not() -> None:
    for root, found in (("1.41421", 1), ("1.414", 0)):
        proto = model(ERF["torch"])
        (array,) = (a for a in proto.graph.initializer if a.name == "root")
        array.CopyFrom(onnx.numpy_helper.from_array(np.float32(root), "root"))
        assert ops(prepared(proto, integers=GATES))["Gelu"] == found


def test_where_the_operator_set_cannot_be_raised_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quark_onnx.stages.prepare.rewriting.newest_opset", lambda at_most: min(at_most, 19))
    result = prepared(model(ERF["torch"]), integers=GATES)
    assert (ops(result)["Erf"], result.model.opset_imports[""]) == (1, 17)


def test_a_model_that_the_converter_refuses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no adapter")

    monkeypatch.setattr("quark_onnx.graph.opset.version_converter.convert_version", refuse)
    result = prepared(model(ERF["torch"]), integers=GATES)
    assert (ops(result)["Erf"], result.model.opset_imports[""]) == (1, 17)
    assert result.model.ir_version == 8
    assert applied(result, "gelu") == []
