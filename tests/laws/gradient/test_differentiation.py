"""What is written behind a graph: only what is asked for, in a fixed order; and what stops it has a name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from text_models import normal, run, text_model

from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.graph import io
from quark_onnx.graph.gradient import Differentiated, differentiate

NET = """g (float[N, 2, 5, 5] x) => (float[N, 3, 5, 5] y) { [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    [relu] r = Relu (c) [twice] d = Mul (r, r) [sum] y = Add (d, r) }"""
CONSTANTS = {"w": normal(3, 2, 3, 3), "b": normal(3)}


def made_of(text: str, by: list[str], of: str = "y", **constants: np.ndarray) -> Differentiated:
    return differentiate(io.load(text_model(text, **constants)), [of], by)


def added(made: Differentiated, nodes: int) -> Counter[str]:
    """Operators behind the first nodes."""
    return Counter(node.op_type for node in list(made.model.graph)[nodes:])


def test_same_bytes_and_the_given_model_is_not_touched() -> None:
    model = io.load(text_model(NET, **CONSTANTS))
    before = io.fingerprint(model)
    one, other = (differentiate(model, ["y"], ["w", "b", "x"]) for _ in range(2))
    assert io.to_proto(one.model).SerializeToString() == io.to_proto(other.model).SerializeToString()
    assert io.fingerprint(model) == before
    io.check(one.model)


def test_only_what_is_asked_for_is_computed() -> None:
    bias, weight = made_of(NET, ["b"], **CONSTANTS), made_of(NET, ["w"], **CONSTANTS)
    assert added(bias, 4)["Conv"] == 0
    assert added(weight, 4)["Conv"] == 1
    assert all(value.uses() for value in bias.model.graph.initializers.values())
    inner = made_of(NET, ["r"], **CONSTANTS)
    assert "Greater" not in added(inner, 4)


def test_readers_add_up() -> None:
    made = made_of(NET, ["r"], **CONSTANTS)
    x, dy = normal(2, 2, 5, 5), normal(2, 3, 5, 5, seed=1)
    y, dr = run(made.model, {"x": x, made.incoming["y"]: dy})
    r = (np.sqrt(1 + 4 * y) - 1) / 2
    np.testing.assert_allclose(dr, dy * (2 * r + 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "times"), [(1, 4), (4, 1)])
def test_what_is_stretched_is_told_at_run_time_where_sizes_are_open(rows: int, times: int) -> None:
    made = made_of("g (float[N, 3] x) => (float[2, ?, 3] y) { y = Mul (x, w) }", ["x"], w=normal(2, 4, 3))
    x, dy = normal(rows, 3), normal(2, 4, 3, seed=1)
    _, dx = run(made.model, {"x": x, made.incoming["y"]: dy})
    assert dx.shape == x.shape
    products = (dy * normal(2, 4, 3)).sum(0)
    np.testing.assert_allclose(dx, products.reshape(rows, times, 3).sum(1), rtol=1e-5)


def test_a_tensor_asked_for_can_be_fed() -> None:
    made = made_of(NET, ["b"], **CONSTANTS)
    x, dy = normal(1, 2, 5, 5), normal(1, 3, 5, 5, seed=1)
    feed = {"x": x, made.incoming["y"]: dy}
    default, same, other = (run(made.model, {**feed, **more}) for more in ({}, CONSTANTS_B, {"b": normal(3, seed=9)}))
    np.testing.assert_array_equal(default[0], same[0])
    assert abs(default[0] - other[0]).max() > 0.1


CONSTANTS_B = {"b": CONSTANTS["b"]}


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("m = Round (c)", "the operator has no rule"),
        ("m = Hardmax (c)", "the operator has no rule"),
        ('m = Resize <mode = "cubic"> (c, , k)', "only nearest and linear ones without antialiasing have a rule"),
    ],
)
def test_what_has_no_rule_stops_and_is_named(middle: str, reason: str) -> None:
    text = f"g (float[1, 1, 4, 4] x) => (float[?, ?, ?, ?] y) {{ c = Mul (x, w) [odd] {middle} y = Mul (m, v) }}"
    constants = {"w": normal(1), "v": normal(1), "k": np.array([1, 1, 2, 2], np.float32)}
    made = made_of(text, ["w", "v"], **constants)
    assert [(stop.node, stop.reason) for stop in made.stops] == [("odd", reason)]
    assert made.unreached == ("w",)
    assert list(made.gradients) == ["v"]


def test_a_way_round_what_has_no_rule_is_taken() -> None:
    text = "g (float[4] x) => (float[4] y) { c = Mul (x, w) [odd] m = Round (c) y = Add (m, c) }"
    made = made_of(text, ["w"], w=normal(1))
    assert (len(made.stops), made.unreached) == (1, ())
    _, gradient = run(made.model, {"x": np.arange(4, dtype=np.float32), made.incoming["y"]: np.ones(4, np.float32)})
    assert gradient.tolist() == [6]


def test_bodies_of_control_flow_stop() -> None:
    text = """g (float[4] x, bool c) => (float[4] y) { m = Mul (x, w) [fork] t = If (c) <
        then_branch = a () => (float[4] p) { p = Neg (m) }, else_branch = e () => (float[4] q) { q = Identity (m) }>
        y = Exp (t) }"""
    made = made_of(text, ["w"], w=normal(1))
    assert [(stop.node, stop.reason) for stop in made.stops] == [
        ("fork", "its bodies read what the gradient is asked for")
    ]


@pytest.mark.parametrize(
    ("equation", "rows", "reason"),
    [
        ("ab,bc", 4, "not one of two tensors with all indices named"),
        ("...b,bc->...c", 4, "not one of two tensors with all indices named"),
        ("aa,ab->b", 4, "an index stands twice"),
        ("ab,cd->ac", 4, "an index of its input 0 is summed alone"),
        ("ab,bc->ac", 1, "a dimension of 1 is stretched"),
    ],
)
def test_equations_that_stop(equation: str, rows: int, reason: str) -> None:
    text = f'g (float[4, 4] x) => (float[M, N] y) {{ t = Einsum <equation = "{equation}"> (x, w) y = Identity (t) }}'
    made = made_of(text, ["x"], w=normal(rows, 4))
    assert [stop.op_type for stop in made.stops] == ["Einsum"]
    assert reason in made.stops[0].reason


def test_a_tensor_that_the_output_does_not_depend_on() -> None:
    made = made_of(
        "g (float[4] x) => (float[4] y, float[4] z) { y = Mul (x, w) z = Mul (x, v) }",
        ["w", "v"],
        w=normal(1),
        v=normal(1),
    )
    assert (made.unreached, made.stops, list(made.gradients)) == (("v",), (), ["w"])


def test_same_gradient_for_two() -> None:
    made = made_of("g (float[4] x) => (float[4] y) { y = Add (x, w) }", ["x", "w", "y"], w=normal(4))
    dy = normal(4, seed=3)
    _, *found = run(made.model, {"x": normal(4), made.incoming["y"]: dy})
    assert [gradient.tolist() for gradient in found] == [dy.tolist()] * 3
    assert len(set(made.gradients.values())) == 3


def test_older_operator_sets_are_raised() -> None:
    made = differentiate(io.load(text_model(NET, 11, **CONSTANTS)), ["y"], ["w"])
    assert made.model.graph.opset_imports[""] == 16


def test_one_that_cannot_be_raised() -> None:
    """A BatchNormalization with statistics per position has no equal in later operator sets."""
    text = "g (float[1, 3, 4] x) => (float[1, 3, 4] y) { y = BatchNormalization <spatial = 0> (x, s, b, m, v) }"
    model = io.load(text_model(text, 8, 6, **{name: abs(normal(3, 4)) + 1 for name in "sbmv"}))
    with pytest.raises(ModelError, match=r"need opset 16, to which the model, of opset 8, cannot be raised"):
        differentiate(model, ["y"], ["x"])


def test_tensors_that_are_not_there_or_have_no_gradient() -> None:
    text = "g (float[4] x, int64[2] i) => (float[2] y) { y = Gather (x, i) }"
    with pytest.raises(ConfigError, match="no tensor 'weight'"):
        made_of(text, ["weight"])
    with pytest.raises(ConfigError, match="'i' is of INT64"):
        made_of(text, ["i"])
    with pytest.raises(ConfigError, match="no tensor 'loss'"):
        made_of(text, ["x"], of="loss")
