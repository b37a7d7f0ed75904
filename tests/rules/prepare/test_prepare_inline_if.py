"""An If gives way to the branch it takes: where its condition is a constant, and where the user says which one."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import applied, normal, ops, prepared, reasons, run, text_model

from quark_onnx.core.errors import ConfigError
from quark_onnx.graph import io
from quark_onnx.stages.prepare import prepare

X = {"x": normal(3, 4)}
BRANCHES = """<then_branch = a () => (float[N,4] u) { h = MatMul (x, w)  u = Relu (h) },
               else_branch = b () => (float[N,4] v) { k = Exp (x)  v = Neg (k) }>"""


def same(text: str, feeds: dict[str, np.ndarray] = X, **constants: np.ndarray) -> object:
    model = text_model(text, **constants)
    result = prepared(model)
    for before, after in zip(run(model, feeds), run(result.model, feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    return result


@pytest.mark.parametrize(("condition", "left"), [(True, {"MatMul", "Relu"}), (False, {"Exp", "Neg"})])
def test_a_constant_condition(condition: bool, left: set[str]) -> None:
    result = same(f"g (float[N,4] x) => (float[N,4] y) {{ y = If (c) {BRANCHES} }}", w=normal(4, 4), c=condition)
    assert set(ops(result)) == left


def test_a_condition_that_folding_finds() -> None:
    """Of the rank of an input, which is known: no input decides."""
    result = same(
        f"""g (float[N,4] x) => (float[N,4] y) {{ s = Shape (x)  r = Size (s)  c = Equal (r, two)
        y = If (c) {BRANCHES} }}""",
        w=normal(4, 4),
        two=np.int64(2),
    )
    assert set(ops(result)) == {"MatMul", "Relu"}


def test_an_if_inside_a_branch_and_constants_in_it() -> None:
    result = same(
        """g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
        t = Relu (x)
        n = Not (c)
        y, z = If (c) <then_branch = a () => (float[N,4] u, float[N,4] same) {
            two = Constant <value = float {2}> ()
            u = If (n) <then_branch = p () => (float[N,4] h2) { h2 = Neg (t) },
                        else_branch = q () => (float[N,4] h3) { h3 = Mul (t, two) }>
            same = Identity (t) },
          else_branch = b () => (float[N,4] v, float[N,4] w) { v = Exp (x)  w = Abs (v) }>
        }""",
        c=True,
    )
    assert "If" not in ops(result)
    assert len(applied(result, "inline-if")) == 2


def test_two_ifs_whose_branches_use_the_same_names() -> None:
    result = same(
        f"""g (float[N,4] x) => (float[N,4] y) {{ y0 = If (c) {BRANCHES}
        y1 = If (c) {BRANCHES.replace("MatMul (x, w)", "Sub (x, y0)")}  y = Add (y0, y1) }}""",
        w=normal(4, 4),
        c=True,
    )
    assert ops(result)["Relu"] == 2


def test_names_of_layers_stay() -> None:
    """Options name them."""
    text = f"g (float[N,4] x) => (float[N,4] y) {{ y = If (c) {BRANCHES} }}"
    model = text_model(text, w=normal(4, 4), c=True)
    model.graph.node[0].attribute[0].g.node[0].name = "projection"
    assert "projection" in {node.name for node in prepared(model).model.graph}


def test_a_computed_condition_stays() -> None:
    model = text_model(f"g (float[N,4] x, bool c) => (float[N,4] y) {{ y = If (c) {BRANCHES} }}", w=normal(4, 4))
    result = prepared(model)
    assert set(ops(result)) == {"If"}
    assert reasons(result, "inline-if") == ["its condition is computed"]


NESTED = """g (float[N,4] x, bool c, bool d) => (float[N,4] y) {
    y = If (c) <then_branch = a () => (float[N,4] u) {
            u = If (d) <then_branch = p () => (float[N,4] s) { s = MatMul (x, w) },
                        else_branch = q () => (float[N,4] t) { t = Neg (x) }> },
        else_branch = b () => (float[N,4] v) { v = Exp (x) }>
    }"""


def asked(branches: dict[str, str]) -> object:
    return prepare(io.load(text_model(NESTED, w=normal(4, 4))), opset=13, branches=branches)


def test_branches_that_the_user_names() -> None:
    result = asked({"If_u": "else", "If_y": "then"})
    assert set(ops(result)) == {"Neg"}
    feeds = [X | {"c": np.array(True), "d": np.array(False)}]
    result.conditions.refuse_others(feeds)
    with pytest.raises(ConfigError, match=r"If 'If_u' is to take its else branch, and for sample 2 .* the then branch"):
        result.conditions.refuse_others([*feeds, X | {"c": np.array(True), "d": np.array(True)}])


def test_one_inside_a_branch_that_is_always_taken() -> None:
    """It is not inside a body once that branch is in its place."""
    text = NESTED.replace("bool c, ", "")
    model = io.load(text_model(text, w=normal(4, 4), c=np.array(True)))
    assert set(ops(prepare(model, opset=13, branches={"If_u": "else"}))) == {"Neg"}


def test_only_the_outer_one_is_named() -> None:
    assert set(ops(asked({"If_y": "then"}))) == {"If"}


@pytest.mark.parametrize(
    ("branches", "reason"),
    [({"If_z": "then"}, "no If 'If_z'; did you mean 'If_y'"), ({"If_u": "then"}, "inside a body")],
)
def test_no_such_if(branches: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        asked(branches)
