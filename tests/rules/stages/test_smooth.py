"""SmoothQuant: where the division goes, that outputs stay what they were, and every no."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from quantized_models import Feed, feeds, graph, placed, run
from text_models import normal

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import SmoothRecord
from quark_onnx.engine.position_rows import position_rows
from quark_onnx.engine.value_shapes import value_shapes
from quark_onnx.graph import Model, io
from quark_onnx.stages.equalize import rescale
from quark_onnx.stages.smooth import How, Smoothed, channels_needed, has_sites, places, smooth, with_products

TOKENS = "(float[2,5,4] x) => (float[2,5,3] y)"
UNEVEN = np.array([0.2, 1.0, 40.0, 3.0], np.float32)
OWN = "a Mul of its own"
ALWAYS = How(alpha=0.5, judged=False)


class Done(NamedTuple):
    """A model, what was decided, and the model made from it."""

    model: Model
    result: Smoothed
    smoothed: Model

    @property
    def record(self) -> SmoothRecord:
        (found,) = self.result.records
        return found


def decided(model: Model, plan: Plan, data: list[Feed], how: How) -> Smoothed:
    found = places(model, plan, value_shapes(model, data[0]), how)
    seen = position_rows(model, data, channels_needed(found), lambda done: None)
    return smooth(plan, found, seen, how)


def smoothed(text: str, how: How = ALWAYS, *, opset: int = 17, per_channel: bool = True, **arrays: Any) -> Done:
    """Smooth on four samples; on them the outputs must be what they were, and the model itself untouched."""
    model = graph(text, opset, **arrays)
    before, data = io.fingerprint(model), feeds(model)
    plan = placed(model, per_channel=per_channel)
    result = decided(model, plan, data, how)
    made = with_products(rescale(model, result.factors, {}), result.smoothed)
    io.check(made)
    assert io.fingerprint(model) == before
    again = decided(model, plan, data, how)
    assert io.fingerprint(with_products(rescale(model, again.factors, {}), again.smoothed)) == io.fingerprint(made)
    for feed in data:
        for known, found in zip(run(model, feed), run(made, feed), strict=True):
            # sums of some dozen products of float32, each factor rounded twice more than it was
            assert np.abs(found - known).max() <= 64 * np.finfo(np.float32).eps * (np.abs(known).max() + 1)
    return Done(model, result, made)


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


NORM = "n = LayerNormalization (x, g, b)"
BY_HAND = """
    mean = ReduceMean <axes = [-1]> (x)
    c = Sub (x, mean)
    sq = Mul (c, c)
    v = ReduceMean <axes = [-1]> (sq)
    d = Sqrt (v)
    r = Div (c, d)
    m = Mul (r, g)
    n = Add (m, b)
"""
HEADS = """
    v = MatMul (x, wv)
    vb = Add (v, bv)
    v4 = Reshape (vb, split)
    vt = Transpose <perm = [0, 2, 1, 3]> (v4)
    p = Softmax (s)
    o = MatMul (p, vt)
    ot = Transpose <perm = [0, 2, 1, 3]> (o)
    n = Reshape (ot, merge)
"""
OF_HEADS = {
    "split": np.array([0, 0, 2, 2]),
    "merge": np.array([0, 0, 4]),
    "wv": normal(4, 4) * UNEVEN,
    "bv": normal(4, seed=3),
}
ATTENTION = "(float[2,5,4] x, float[2,2,5,5] s) => (float[2,5,3] y)"
PARAMETERS = {"g": UNEVEN, "b": normal(4, seed=2)}

FOLDED: dict[str, tuple[str, dict[str, Any], str, set[str]]] = {  # what takes it in, and what is divided
    "normalization": (f"{TOKENS} <float[4,3] w> {{ {NORM} y = MatMul (n, w) }}", PARAMETERS, "LayerN", {"g", "b"}),
    "by hand": (f"{TOKENS} <float[4,3] w> {{ {BY_HAND} y = MatMul (n, w) }}", PARAMETERS, "Mul ", {"g", "b"}),
    "values": (f"{ATTENTION} <float[4,3] w> {{ {HEADS} y = MatMul (n, w) }}", OF_HEADS, "MatMul ", {"wv", "bv"}),
    "gate": (
        f"{TOKENS} <float[4,3] w, float[4,4] wg> {{ g = MatMul (x, wg) s = Sigmoid (g) f = Mul (g, s) "
        "u = MatMul (x, wu) n = Mul (f, u) y = MatMul (n, w) }",
        {"wu": normal(4, 4) * UNEVEN},
        "MatMul ",
        {"wu"},
    ),
    "relu": (
        f"{TOKENS} <float[4,3] w> {{ h = MatMul (x, wu) hb = Add (bu, h) n = Relu (hb) y = MatMul (n, w) }}",
        {"wu": normal(4, 4) * UNEVEN, "bu": normal(4)},
        "MatMul ",
        {"wu", "bu"},
    ),
    "rows": (
        "(float[2,5,4] x) => (float[10,3] y) <float[4,3] w, float[3] c, int64[2] rows = {-1, 4}> "
        f"{{ {NORM} r = Reshape (n, rows) y = Gemm (r, w, c) }}",
        PARAMETERS,
        "LayerN",
        {"g", "b"},
    ),
    "across": (
        f"(float[5,4] x) => (float[5,3] y) <float[3,4] w> {{ {NORM} y = Gemm <transB = 1> (n, w) }}",
        PARAMETERS,
        "LayerN",
        {"g", "b"},
    ),
    "asked for its shape": (
        f"(float[2,5,4] x) => (float[2,5,3] y, int64[3] z) <float[4,3] w> {{ {NORM} z = Shape (n) y = MatMul (n, w) }}",
        PARAMETERS,
        "LayerN",
        {"g", "b"},
    ),
}


@pytest.mark.parametrize(("text", "arrays", "into", "divided"), FOLDED.values(), ids=FOLDED)
def test_what_takes_the_division_in(text: str, arrays: dict[str, Any], into: str, divided: set[str]) -> None:
    done = smoothed(text, How(0.5, judged=False, products=False), **arrays)
    record = done.result.records[-1]
    assert done.result.smoothed == {}
    assert record.into.startswith(into)
    assert (record.alpha, record.reason) == (0.5, "")
    assert divided < set(done.result.factors)
    assert ops(done.smoothed) == ops(done.model)


OWN_MUL: dict[str, tuple[str, dict[str, Any]]] = {  # the nearest models where nothing takes the division in
    "a residual reads it": (
        f"{TOKENS[:-1]}, float[2,5,4] z) <float[4,3] w> {{ {NORM} z = Add (n, x) y = MatMul (n, w) }}",
        PARAMETERS,
    ),
    "the model returns it": (
        f"{TOKENS[:-1]}, float[2,5,4] n) <float[4,3] w> {{ {NORM} y = MatMul (n, w) }}",
        PARAMETERS,
    ),
    "its scale is shared": (
        f"{TOKENS[:-1]}, float[2,5,4] z) <float[4,3] w> {{ {NORM} z = Mul (x, g) y = MatMul (n, w) }}",
        PARAMETERS,
    ),
    "a function": (
        f"{TOKENS} <float[4,3] w> {{ h = MatMul (x, wu) n = Tanh (h) y = MatMul (n, w) }}",
        {"wu": normal(4, 4) * UNEVEN},
    ),
    "values are kept": (
        "(float[2,5,4] x, float[2,2,5,8] s, float[2,2,3,2] past) => (float[2,5,3] y) <float[4,3] w> { "
        + HEADS.replace("MatMul (p, vt)", "MatMul (p, all)").replace(
            "p = S", "all = Concat <axis = 2> (past, vt)\n    p = S"
        )
        + " y = MatMul (n, w) }",
        OF_HEADS,
    ),
    "values are read elsewhere": (
        f"{ATTENTION[:-1]}, float[2,5,4] z) <float[4,3] w> {{ {HEADS} z = Neg (vb) y = MatMul (n, w) }}",
        OF_HEADS,
    ),
    "a square": (
        f"{TOKENS} <float[4,3] w> {{ h = MatMul (x, wu) n = Mul (h, h) y = MatMul (n, w) }}",
        {"wu": normal(4, 4) * UNEVEN},
    ),
    "a gate on both sides": (
        f"{TOKENS} <float[4,3] w> {{ h = MatMul (x, wu) s = Sigmoid (h) n = Mul (h, s) y = MatMul (n, w) }}",
        {"wu": normal(4, 4) * UNEVEN},
    ),
}


@pytest.mark.parametrize(("text", "arrays"), OWN_MUL.values(), ids=OWN_MUL)
def test_a_mul_stands_in_front_of_the_products_alone(text: str, arrays: dict[str, Any]) -> None:
    done = smoothed(text, **arrays)
    record = done.result.records[-1]
    (last,) = [node for node in done.smoothed.graph if node.outputs[0].name == "y"]
    mul = last.inputs[0].producer()
    assert record.into == OWN
    assert mul.op_type == "Mul"
    assert mul.inputs[0].name == record.tensor
    np.testing.assert_array_equal(mul.inputs[1].const_value.numpy(), done.result.smoothed[record.tensor])
    for node in done.smoothed.graph:
        if node not in (last, mul):
            assert mul.outputs[0] not in node.inputs


def test_scales_per_tensor_are_not_changed_by_columns() -> None:
    """With one scale for a weight its columns are no place for a division: it would change the scale of all others."""
    done = smoothed(f"{ATTENTION} <float[4,3] w> {{ {HEADS} y = MatMul (n, w) }}", per_channel=False, **OF_HEADS)
    assert done.result.records[-1].into == OWN


def test_heads_that_share_values_get_the_same_factors() -> None:
    """Two heads for queries, one for values: what both read of it is divided once."""
    text = f"""{ATTENTION} <float[4,3] w> {{
        v = MatMul (x, wv)
        v4 = Reshape (v, split)
        vt = Transpose <perm = [0, 2, 1, 3]> (v4)
        ve = Expand (vt, two)
        p = Softmax (s)
        o = MatMul (p, ve)
        ot = Transpose <perm = [0, 2, 1, 3]> (o)
        n = Reshape (ot, merge)
        y = MatMul (n, w)
    }}"""
    arrays = {"wv": normal(4, 2), "split": np.array([0, 0, 1, 2]), "two": np.array([1, 2, 1, 1]), "merge": [0, 0, 4]}
    done = smoothed(text, How(0.5, judged=False, products=False), **arrays)
    s = done.result.factors["w"].reshape(-1)
    assert done.result.records[-1].into.startswith("MatMul")
    np.testing.assert_array_equal(s[:2], s[2:])
    assert s[0] != s[1]
    np.testing.assert_array_equal(done.result.factors["wv"].reshape(-1), 1 / s[:2])


def test_a_part_of_one_projection() -> None:
    """Queries, keys and values of one weight: the columns of the values alone are divided."""
    text = f"""{ATTENTION} <float[4,3] w> {{
        a = MatMul (x, wa)
        q, k, v = Split <axis = 2, num_outputs = 3> (a)
        v4 = Reshape (v, split)
        vt = Transpose <perm = [0, 2, 1, 3]> (v4)
        qk = Mul (q, k)
        r = ReduceMean <keepdims = 1> (qk)
        t = Add (s, r)
        p = Softmax (t)
        o = MatMul (p, vt)
        ot = Transpose <perm = [0, 2, 1, 3]> (o)
        n = Reshape (ot, merge)
        y = MatMul (n, w)
    }}"""
    arrays = {key: OF_HEADS[key] for key in ("split", "merge")}
    done = smoothed(text, How(0.5, judged=False, products=False), opset=18, wa=normal(4, 12), **arrays)
    divided = done.result.factors["wa"].reshape(-1)
    assert (divided[:8] == 1).all()
    np.testing.assert_array_equal(divided[8:], 1 / done.result.factors["w"].reshape(-1))


LEFT: dict[str, tuple[str, dict[str, Any], How, str]] = {
    "one row": (
        "(float[5,4] x) => (float[5,3] y) <float[4,3] w> { n = Tanh (x) y = MatMul (n, w) }",
        {},
        ALWAYS,
        "one row",
    ),
    "no Mul": (
        f"{TOKENS} <float[4,3] w> {{ n = Tanh (x) y = MatMul (n, w) }}",
        {},
        How(0.5, judged=False, products=False),
        "nothing takes the division in: Tanh",
    ),
    "another reader of integers": (
        f"{TOKENS[:-1]}, float[2,5,5] z) <float[4,3] w> {{ {NORM} t = Transpose <perm = [0, 2, 1]> (n) "
        "z = MatMul (n, t) y = MatMul (n, w) }",
        PARAMETERS,
        ALWAYS,
        "reads it as integers, too",
    ),
    "infinite": (
        f"{TOKENS} {{ {NORM} y = MatMul (n, w) }}",
        {**PARAMETERS, "g": np.float32([1, 1, np.inf, 1]), "w": normal(4, 3)},
        ALWAYS,
        "infinite or NaN",
    ),
    "no gain": (
        f"{TOKENS} {{ n = Tanh (x) y = MatMul (n, w) }}",
        {"w": np.eye(4, 3, dtype=np.float32)},
        How(1.0),
        "its products gain too little",
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("text", "arrays", "how", "reason"), LEFT.values(), ids=LEFT)
def test_a_site_is_left_alone(text: str, arrays: dict[str, Any], how: How, reason: str) -> None:
    model = graph(text, **arrays)
    result = decided(model, placed(model, per_channel=True), feeds(model), how)
    (record,) = result.records
    assert reason in record.reason
    assert (record.alpha, result.factors, result.smoothed) == (0.0, {}, {})


REFUSED = {  # weights that cannot take factors: their products are readers like any other
    "tied": (f"{TOKENS[:-1]}, float[4,3] z) <float[4,3] w> {{ n = Tanh (x) z = Neg (w) y = MatMul (n, w) }}", "shared"),
    "of two products": (
        "(float[2,5,4] x) => (float[2,5,4] y) <float[4,4] w> { n = MatMul (x, w) y = MatMul (n, w) }",
        "shared",
    ),
    "no matrix": (f"{TOKENS} <float[2,4,3] w> {{ n = Tanh (x) y = MatMul (n, w) }}", "no matrix"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_weights_that_cannot_take_factors(text: str, reason: str) -> None:
    model = graph(text)
    result = decided(model, placed(model, per_channel=True), feeds(model), ALWAYS)
    assert (result.factors, result.smoothed) == ({}, {})
    assert {record.reason for record in result.records} == {f"its weight is {reason}"}
    assert result.records[-1].tensor == "n"


def test_models_without_products_are_told_from_others() -> None:
    assert has_sites(graph(REFUSED["tied"][0]))
    assert not has_sites(graph("(float[2,5,4] x) => (float[2,5,4] y) { y = Tanh (x) }"))
