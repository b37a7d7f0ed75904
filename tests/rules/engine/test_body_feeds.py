"""What goes into bodies: seen from outside, it is what onnxruntime gives them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_models import normal, text_model

from quark_onnx.engine.body_feeds import body_feeds, spaced_out
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.graph.bodies import as_model, bodies, put_back
from quark_onnx.graph.passes import infer_shapes

IF = """g (float[N,2] x, bool c) => (float[N,2] y) {
    t = Relu (x)
    y = If (c) <then_branch = a () => (float[N,2] u) { u = Mul (t, two) },
                else_branch = b () => (float[N,2] v) { v = Sub (x, t) }>
}"""

LOOP = """g (float[N,2] x, int64 n, float most) => (float[N,2] y) {
    go = Constant <value = bool {1}> ()
    y = Loop (n, go, x) <body = step (int64 i, bool on, float[N,2] s) => (bool more, float[N,2] r) {
        r = Mul (s, two)
        top = ReduceMax <keepdims = 0> (r)
        more = Less (top, most) }>
}"""

SCAN = """g (float[2] h0, float[T,2] x) => (float[2] h, float[T,2] ys) {
    h, ys = Scan <num_scan_inputs = 1, scan_input_directions = [DIRECTION], body = step
        (float[2] s, float[2] now) => (float[2] next, float[2] out) {
        next = Add (s, now)  out = Mul (next, two) }> (h0, x)
}"""

TWO = {"two": np.float32(2)}


def fed(text: str, feeds: list[Feed]) -> dict[str, Kept]:
    model = io.load(text_model(text, **TWO))
    infer_shapes(model)
    for node in model.graph:
        node.name = node.op_type
    return body_feeds(model, feeds, {body.key: as_model(body, model) for body in bodies(model.graph)})


def test_if() -> None:
    """Each branch has what is around it, for the samples that take it."""
    x = np.array([[-1, 3]], np.float32)
    seen = fed(IF, [{"x": x + i, "c": np.array(i == 1)} for i in range(3)])
    assert [feed["t"].tolist() for feed in seen["If/then_branch"]] == [[[0, 4]]]
    assert [feed.keys() for feed in seen["If/else_branch"]] == [{"x", "t"}, {"x", "t"}]
    np.testing.assert_array_equal(seen["If/else_branch"][1]["x"], x + 2)


@pytest.mark.parametrize(("trips", "most", "steps"), [(3, 1e9, 3), (9, 5, 3), (0, 1e9, 0)])
def test_loop(trips: int, most: float, steps: int) -> None:
    """It ends with its number of trips or with its condition; a state goes from step to step."""
    (feeds,) = fed(
        LOOP, [{"x": np.ones((1, 2), np.float32), "n": np.array(trips), "most": np.array(most, np.float32)}]
    ).values()
    assert [int(feed["i"]) for feed in feeds] == list(range(steps))
    assert [feed["s"].max() for feed in feeds] == [1, 2, 4][:steps]


def test_loop_that_counts_in_rows() -> None:
    """What counts the steps may be declared as a row of one number."""
    text = LOOP.replace("int64 i", "int64[1] i")
    (feeds,) = fed(
        text, [{"x": np.ones((1, 2), np.float32), "n": np.array(2), "most": np.array(9, np.float32)}]
    ).values()
    assert [feed["i"].shape for feed in feeds] == [(1,), (1,)]


@pytest.mark.parametrize(("direction", "order"), [(0, [0, 1, 2]), (1, [2, 1, 0])])
def test_scan(direction: int, order: list[int]) -> None:
    x = normal(3, 2)
    (feeds,) = fed(SCAN.replace("DIRECTION", str(direction)), [{"h0": np.zeros(2, np.float32), "x": x}]).values()
    np.testing.assert_array_equal([feed["now"] for feed in feeds], x[order])
    np.testing.assert_allclose([feed["s"] for feed in feeds[1:]], np.cumsum(x[order], 0)[:2], rtol=1e-6)


@given(st.integers(0, 500), st.integers(2, 40))
def test_spaced_out(count: int, most: int) -> None:
    """Not more than asked for, the first one among them, all at one distance, and not fewer than half."""
    kept = [int(feed["i"]) for feed in spaced_out(({"i": np.array(i)} for i in range(count)), most)]
    distances = {b - a for a, b in pairwise(kept)}
    assert kept[:1] == [0][:count]
    assert len(distances) <= 1
    assert min(count, most // 2) <= len(kept) <= min(count, most)


@pytest.mark.parametrize("text", [IF, LOOP, SCAN.replace("DIRECTION", "0")])
def test_a_body_put_back_is_what_it_was(text: str) -> None:
    """As a model and back it computes the same, though it has a name that is taken; the source is not touched."""
    proto = text_model(text, **TWO)
    before = proto.SerializeToString(deterministic=True)
    model = io.load(proto)
    infer_shapes(model)
    model.graph[-1].name = "flow"
    twin = io.copy(model)
    alone, taken = {body.key: as_model(body, model) for body in bodies(model.graph)}, model.graph.outputs[0].name
    for body in alone.values():
        body.graph[0].outputs[0].name = taken
    put_back(twin, alone)
    inside = [value.name for graph in twin.graph.subgraphs() for node in graph for value in node.outputs]
    assert taken not in inside
    feed = {
        "x": normal(3, 2),
        "c": np.array(True),
        "n": np.array(3),
        "most": np.array(100, np.float32),
        "h0": np.zeros(2, np.float32),
    }
    feed = {value.name: feed[value.name] for value in model.graph.inputs}
    for was, now in zip(Runner(model)(feed), Runner(twin)(feed), strict=True):
        np.testing.assert_array_equal(now, was)
    onnx.checker.check_model(io.to_proto(twin))
    assert proto.SerializeToString(deterministic=True) == before
