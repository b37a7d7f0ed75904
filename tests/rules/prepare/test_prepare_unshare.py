"""unshare: copies for readers that would quantize one initializer in different ways."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import applied, assert_same, normal, ops, prepared, text_model, weights

from quark_onnx.stages.prepare import Prepared


def readers(result: Prepared) -> dict[str, tuple[str, ...]]:
    """Constants read, by node name."""
    graph = result.model.graph
    return {node.name: tuple(v.name for v in node.inputs if v.name in graph.initializers) for node in graph}


@pytest.mark.parametrize("optimize", [True, False])
def test_a_bias_of_its_own_for_every_layer(optimize: bool) -> None:
    text = """g (float[1,4,6] x) => (float[1,4,L] y) {
        [a] p = Conv (x, u, b) [b] q = Conv (p, v, b) [c] y = ConvTranspose (q, w, b) }"""
    proto = text_model(text, u=normal(4, 4, 1), v=normal(4, 4, 2), w=normal(4, 4, 3), b=normal(4))
    result = prepared(proto, optimize=optimize)
    assert readers(result) == {"a": ("u", "b"), "b": ("v", "b_1"), "c": ("w", "b_2")}
    assert_same(proto, result, {"x": normal(1, 4, 6)}, terms=0)


def test_a_bias_that_is_added_elsewhere() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) { [a] p = Add (x, b) [g] q = Gemm (p, w, b) y = Relu (q) }"
    proto = text_model(text, w=normal(4, 4), b=normal(4))
    result = prepared(proto)
    assert readers(result) | {"a": ("b",), "g": ("w", "b_1")} == readers(result)
    assert_same(proto, result, {"x": normal(2, 4)}, terms=0)


def test_equal_readers_share_the_weight() -> None:
    text = "g (float[1,4,6] x) => (float[1,4,L] y) { [a] p = Conv (x, w) [b] q = Conv (p, w) [c] y = Conv (q, w) }"
    proto = text_model(text, w=normal(4, 4, 1))
    result = prepared(proto)
    assert applied(result, "unshare") == []
    assert set(weights(result)) == {"w"}


def test_one_copy_for_each_way_of_reading() -> None:
    """Gemm cuts w by columns, Gemm with transB by rows, MatMul on the left by rows too, but of another kind."""
    text = """g (float[4,4] x) => (float[4,4] y) {
        [a] p = Gemm (x, w) [b] q = Gemm <transB = 1> (p, w) [c] r = Gemm <transB = 1> (q, w) [d] s = MatMul (r, w)
        [e] t = MatMul (w, s) [f] y = Gemm (t, w) }"""
    proto = text_model(text, w=normal(4, 4))
    result = prepared(proto)
    assert {node: names[0] for node, names in readers(result).items()} == {
        "a": "w",
        "b": "w_1",
        "c": "w_1",
        "d": "w_2",
        "e": "w_3",
        "f": "w",
    }
    assert_same(proto, result, {"x": normal(4, 4)}, terms=0)


@pytest.mark.parametrize(
    "other",
    [
        "z = Add (p, w)",
        "z = Gather (w, i)",
        "z = Gemm (w, v)",
        "z = If (k) <then_branch = t () => (float[4,4] m) { m = MatMul (p, w) }, "
        "else_branch = e () => (float[4,4] n) { n = Neg (p) }>",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_plain_readers_keep_the_original(other: str, first: bool) -> None:
    nodes = [other, "[g] y = MatMul (p, w)"] if first else ["[g] y = MatMul (p, w)", other]
    inputs = "float[4,4] x, bool k, float[4,4] v, int64[4] i"
    text = f"g ({inputs}) => (float[4,4] y, float[4,4] z) {{ p = Relu (x) {' '.join(nodes)} }}"
    proto = text_model(text, w=normal(4, 4))
    result = prepared(proto)
    assert applied(result, "unshare") == ["g"]
    assert readers(result)["g"] == ("w_1",)
    assert_same(proto, result, {"x": normal(4, 4), "k": np.array(True), "v": normal(4, 4), "i": np.arange(4)}, terms=0)


def test_weight_that_is_a_graph_output() -> None:
    proto = text_model("g (float[4,4] x) => (float[4,4] y, float[4,4] w) { [g] y = MatMul (x, w) }", w=normal(4, 4))
    result = prepared(proto)
    assert readers(result) == {"g": ("w_1",)}
    assert_same(proto, result, {"x": normal(4, 4)}, terms=0)


def test_folded_layers_have_their_own_constants() -> None:
    text = """g (float[1,4,6] x) => (float[1,4,L] y) {
        [a] p = Conv (x, w, b) q = Mul (p, k) [b] r = Conv (q, w, b) y = Relu (r) }"""
    proto = text_model(text, w=normal(4, 4, 1), b=normal(4), k=normal(4, 1))
    result = prepared(proto)
    assert ops(result) == {"Conv": 2, "Relu": 1}
    assert readers(result)["a"] == ("w_1", "b_1")
    assert readers(result)["b"] == ("w", "b")
    assert_same(proto, result, {"x": normal(1, 4, 6)}, terms=25)
