"""Cutting a graph: the pieces, run in turn, are the model; nothing but the values on a cut crosses it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_models import Feed, feeds, graph, run

from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.segments import Segment, segments, submodel

BODY = """[i] t = If (c) <then_branch = g () => (float[2,4] u) { [n] u = MatMul (h, w) },
    else_branch = g () => (float[2,4] e) { [m] d = Add (x, h) [o] e = Neg (d) }>"""
MODELS = {
    name: graph(text)
    for name, text in {
        "chain": "(float[2,4] x) => (float[2,4] y) <float[4,4] v, float[4,4] w> "
        "{ [a] a = MatMul (x, v) [b] b = Relu (a) [c] c = MatMul (b, w) [d] y = Neg (c) }",
        "residual": "(float[2,4] x) => (float[2,4] y) <float[4,4] w> "
        "{ [a] a = MatMul (x, w) [b] b = Relu (a) [c] c = Add (b, x) [d] d = MatMul (c, w) [e] y = Add (d, a) }",
        "several inputs and outputs": "(float[2,4] x, float[2,4] z, int64[2] k) "
        "=> (float[2,4] y, float[2,4] a, int64[2] j) <float[4,4] w> "
        "{ [a] a = MatMul (x, w) [b] b = Add (a, z) [c] y = MatMul (b, w) [j] j = Add (k, k) }",
        "a body": "(float[2,4] x, bool c) => (float[2,4] y) <float[4,4] w> "
        f"{{ [a] h = MatMul (x, w) [b] k = Relu (h) {BODY} [e] y = Add (t, k) }}",
        "an input that is an output": "(float[2,4] x) => (float[2,4] x, float[2,4] y) "
        "{ [a] b = Neg (x) [b] y = Abs (b) }",
        "constants only": "(float[2,4] x) => (float[2,4] y) <float[4,4] w> "
        "{ [a] v = Transpose (w) [b] y = MatMul (x, v) [c] z = Exp (w) }",
        "an omitted input": "(float[2,4] x) => (float[2,4] y) <float six> { [a] a = Neg (x) [b] y = Clip (a, , six) }",
    }.items()
}
MODELS["several values of a node"] = graph(
    "(float[2,4] x) => (float[2,2] y, float[2,2] q) "
    "{ [a] p, q = Split <axis = 1> (x, s) [b] b = Neg (p) [c] y = Mul (b, q) [d] r = Abs (p) }",
    s=np.int64([2, 2]),
)


def in_turn(model: Model, pieces: Collection[Segment], feed: Feed) -> list[np.ndarray]:
    """The outputs of the model by running piece after piece, each with nothing but its inputs."""
    values = dict(feed)
    for piece in pieces:
        if not piece.outputs:
            continue
        part = submodel(model, piece)
        assert [value.name for value in part.graph.inputs] == list(piece.inputs)
        assert [value.name for value in part.graph.outputs] == list(piece.outputs)
        values |= zip(piece.outputs, run(part, {name: values[name] for name in piece.inputs}), strict=True)
    return [values[value.name or ""] for value in model.graph.outputs]


def readers(pieces: Collection[Segment], name: str) -> list[int]:
    return [i for i, piece in enumerate(pieces) if name in piece.inputs]


@settings(deadline=None)
@given(st.data(), st.sampled_from(list(MODELS)))
def test_the_pieces_are_the_model_for_any_anchors(data: st.DataObject, name: str) -> None:
    model = MODELS[name]
    names = [node.name or "" for node in model.graph]
    anchors = data.draw(st.sets(st.sampled_from([*names, "no such node", "n"])))
    before = io.fingerprint(model)
    pieces = segments(model, anchors)
    assert [node.name for piece in pieces for node in piece.nodes] == names
    assert {piece.nodes[0].name for piece in pieces} == (anchors & {*names}) | {names[0]}
    known = {value.name for value in model.graph.inputs}
    outputs = {value.name for value in model.graph.outputs}
    for i, piece in enumerate(pieces):
        assert known.issuperset(piece.inputs)
        known.update(piece.outputs)
        for output in piece.outputs:
            assert output in outputs or max(readers(pieces, output), default=0) > i
    for feed in feeds(model, 2):
        for want, got in zip(run(model, feed), in_turn(model, pieces, feed), strict=True):
            np.testing.assert_array_equal(got, want)
    assert io.fingerprint(model) == before


def test_only_the_cut_crosses() -> None:
    first, second, third = segments(MODELS["residual"], {"c", "d"})
    assert (first.inputs, first.outputs) == (("x",), ("a", "b"))
    assert (second.inputs, second.outputs) == (("b", "x"), ("c",))
    assert (third.inputs, third.outputs) == (("c", "a"), ("y",))


def test_what_a_body_reads_crosses_too() -> None:
    """A node inside a body is no anchor, be its name one."""
    pieces = segments(MODELS["a body"], {"i", "n"})
    assert [[node.name for node in piece.nodes] for piece in pieces] == [["a", "b"], ["i", "e"]]
    assert set(pieces[1].inputs) == {"c", "h", "x", "k"}
    (whole,) = segments(MODELS["a body"], {"a"})
    assert set(whole.inputs) == {"x", "c"}


def test_without_anchors_or_with_the_first_node_as_anchor_it_is_one_piece() -> None:
    for anchors in (set(), {"a"}):
        (piece,) = segments(MODELS["chain"], anchors)
        assert (piece.inputs, piece.outputs) == (("x",), ("y",))


def test_a_piece_shares_its_weights_with_the_model_and_can_return_inner_values() -> None:
    model = MODELS["chain"]
    (piece,) = segments(model, set())
    part = submodel(model, piece, ["a", "b", "y"])
    assert [value.name for value in part.graph.outputs] == ["y", "a", "b"]
    assert part.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    feed = feeds(model, 1)[0]
    y, a, b = Runner(part, optimized=False)(feed)
    np.testing.assert_array_equal(b, np.maximum(a, 0))
    np.testing.assert_array_equal(y, run(model, feed)[0])


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_a_piece_does_not_read_stay_outside(name: str) -> None:
    for piece in segments(MODELS[name], {node.name or "" for node in MODELS[name].graph}):
        part = submodel(MODELS[name], piece)
        read = {value.name for node in part.graph.all_nodes() for value in node.inputs if value is not None}
        assert part.graph.initializers.keys() <= read
