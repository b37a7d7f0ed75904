"""Lifting, Identity, Dropout, ConstantOfShape, folding: what becomes a constant, and what must not."""

from __future__ import annotations

import resource

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx_text import parse_model
from text_models import applied, assert_same, batchnorm, normal, ops, prepared, reasons, run, text_model, weights

from quark_onnx.graph import io
from quark_onnx.stages.prepare import prepare


def test_constant_nodes_become_initializers() -> None:
    text = """g (float[2] x) => (float[2] y) {
        a = Constant <value = float[2] {1.0, 2.0}> () b = Constant <value_float = 3.0> ()
        c = Constant <value_ints = [2]> () p = Add (x, a) q = Reshape (p, c) y = Mul (q, b) }"""
    proto = text_model(text)
    result = prepared(proto, optimize=False)
    assert ops(result) == {"Add": 1, "Reshape": 1, "Mul": 1}
    assert set(weights(result)) == {"a", "b", "c"}
    assert_same(proto, result, {"x": normal(2)}, terms=0)


def test_initializers_listed_as_inputs() -> None:
    """As models before IR version 4 have them; the interface keeps the real inputs only."""
    text = "g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul (x, w) }"
    proto = text_model(text, opset=8, ir_version=3, w=normal(3, 4))
    result = prepared(proto)
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert result.model.ir_version >= 4
    assert_same(proto, result, {"x": normal(2, 3)}, terms=0)


@pytest.mark.parametrize(
    ("chain", "stored"),
    [
        ("w = Transpose <perm = [1, 0]> (v)", normal(4, 3)),
        ("w = Identity (v)", normal(3, 4)),
        ("u = Cast <to = 10> (v) w = Cast <to = 1> (u)", normal(3, 4)),
        ("z = Constant <value_ints = [0]> () w = Squeeze (v, z)", normal(1, 3, 4)),
        ("z = Constant <value_ints = [3, 4]> () w = Reshape (v, z)", normal(12)),
        ("u = Mul (v, v) w = Sqrt (u)", normal(3, 4)),
    ],
)
def test_weights_behind_constant_operators(chain: str, stored: np.ndarray) -> None:
    text = f"g (float[2,3] x) => (float[2,4] y) {{ {chain} y = MatMul (x, w) }}"
    proto = text_model(text, v=stored)
    result = prepared(proto)
    assert ops(result) == {"MatMul": 1}
    assert len(weights(result)) == 1
    assert_same(proto, result, {"x": normal(2, 3)}, terms=3)


def test_unsqueezed_weight() -> None:
    text = "g (float[1,3,5] x) => (float[1,4,L] y) { w = Unsqueeze (v, a) y = Conv (x, w) }"
    result = prepared(text_model(text, v=normal(4, 3), a=np.array([2])))
    assert ops(result) == {"Conv": 1}
    assert {array.shape for array in weights(result).values()} == {(4, 3, 1)}


def test_shape_chain_of_a_known_input() -> None:
    """Shape, Gather, Unsqueeze, Concat, ConstantOfShape, Concat: the pads of an exported zero-padding."""
    text = """g (float[N,4,6] x) => (float[N,6,6] y) {
        i = Constant <value_int = 1> () z = Constant <value_ints = [0]> () two = Constant <value_ints = [2]> ()
        s = Shape (x) c = Gather (s, i) u = Unsqueeze (c, z) h = Div (u, two)
        zeros = ConstantOfShape <value = int64[1] {0}> (h) e = Constant <value_ints = [1, 0, 0, 1, 0]> ()
        z1 = Slice (zeros, z, i1) p = Concat <axis = 0> (z1, e)
        y = Pad (x, p) }"""
    proto = text_model(text, i1=np.array([1]))
    result = prepared(proto)
    assert ops(result) == {"Pad": 1}
    np.testing.assert_array_equal(weights(result)["p"], [0, 1, 0, 0, 1, 0])
    assert_same(proto, result, {"x": normal(2, 4, 6)}, terms=0)


def test_shape_chain_of_a_dynamic_input_stays() -> None:
    text = "g (float[N,M] x) => (float[K] y) { s = Shape (x) y = ConstantOfShape (s) }".replace("[K]", "[N,M]")
    proto = text_model(text)
    result = prepared(proto)
    assert ops(result) == {"Shape": 1, "ConstantOfShape": 1}
    assert reasons(result, "constant-of-shape") == ["the shape is not constant"]
    assert_same(proto, result, {"x": normal(2, 3)}, terms=0)


@pytest.mark.parametrize(("value", "dtype"), [("", np.float32), ("<value = int32[1] {7}>", np.int32)])
def test_constant_of_shape(value: str, dtype: type) -> None:
    kind = "float" if dtype is np.float32 else "int32"
    text = f"g ({kind}[2,3] x) => ({kind}[2,3] y) {{ [n] c = ConstantOfShape {value} (s) y = Add (x, c) }}"
    proto = text_model(text, s=np.array([2, 3]))
    result = prepared(proto)
    assert applied(result, "constant-of-shape") == ["n"]
    assert ops(result) == {"Add": 1}
    assert_same(proto, result, {"x": normal(2, 3).astype(dtype)}, terms=0)


def test_constant_of_shape_as_graph_output() -> None:
    proto = text_model("g (float[2] x) => (float[2] y) { c = ConstantOfShape (s) y = Identity (c) }", s=np.array([2]))
    result = prepared(proto)
    assert_same(proto, result, {"x": normal(2)}, terms=0)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("c = ConstantOfShape (s)", [8192, 8192]),
        ("c = Expand (one, s)", [8192, 8192]),
        ("c = Tile (one, s)", [8192, 8192]),
        ("z = Constant <value_int = 0> () e = Squeeze (s) r = Range (z, e, e1) c = Cast <to = 1> (r)", [40_000_000]),
        ("c = MatMul (column, row)", [1]),
    ],
)
def test_huge_constants_are_never_made(node: str, shape: list[int]) -> None:
    """Not even for a moment: 64 million floats are 256 MB."""
    text = f"g (float[1] x) => (float[1] y) {{ {node} m = ReduceSum <keepdims = 0> (c) y = Add (x, m) }}"
    arrays = {"s": np.array(shape), "e1": np.array(1), "column": normal(8192, 1), "row": normal(1, 8192)}
    model = io.load(text_model(text, one=np.ones([1] * len(shape), np.float32), **arrays))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = prepare(model, opset=13)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert ops(result)["ReduceSum"] == 1
    assert io.weight_bytes(result.model) < 100_000


def test_zero_size_constant() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { c = ConstantOfShape (s) y = Concat <axis = 0> (x, c) }"
    proto = text_model(text, s=np.array([0, 3]))
    assert_same(proto, prepared(proto), {"x": normal(2, 3)}, terms=0)


def test_identity_goes_where_it_can() -> None:
    """x → i1 → Relu → i2 → output; i3 names a graph input, i4 a graph output, i5 a constant: these stay."""
    text = """g (float[2] x) => (float[2] a, float[2] b, float[2] c, float[2] d) {
        i1 = Identity (x) r = Relu (i1) a = Identity (r) b = Identity (x) c = Identity (a) d = Identity (k) }"""
    proto = text_model(text, k=normal(2))
    result = prepared(proto, optimize=False)
    assert ops(result) == {"Relu": 1, "Identity": 3}
    assert reasons(result, "drop-identity") == ["a graph output needs a name of its own"] * 3
    assert_same(proto, result, {"x": normal(2)}, terms=0)
    assert_same(proto, prepared(proto), {"x": normal(2)}, terms=0)


def test_identity_inside_a_body() -> None:
    text = """g (float[2] x, bool k) => (float[2] h, float[2] y) { i = Identity (x) h = Relu (i)
        y = If (k) <then_branch = t () => (float[2] p) { p = Identity (h) },
                    else_branch = e () => (float[2] q) { q = Neg (i) }> }"""
    proto = text_model(text)
    result = prepared(proto)
    for k in (True, False):
        assert_same(proto, result, {"x": normal(2), "k": np.array(k)}, terms=0)


def test_constant_condition_inlines_the_branch() -> None:
    """The branches reuse names of each other, as exporters write them; the caller's model must keep its own."""
    text = """g (float[2] x) => (float[2] y, float[2] z) {
        y = If (k) <then_branch = t () => (float[2] p) { c = Constant <value = float[1] {2.0}> () p = Mul (x, c) },
                    else_branch = e () => (float[2] q) { c = Constant <value = float[1] {3.0}> () q = Mul (x, c) }>
        z = If (k) <then_branch = t2 () => (float[2] p) { c = Constant <value = float[1] {4.0}> () p = Mul (x, c) },
                    else_branch = e2 () => (float[2] q) { q = Neg (x) }> }"""
    proto = text_model(text, k=np.array(True))
    result = prepared(proto)
    assert ops(result) == {"Mul": 2}
    assert_same(proto, result, {"x": normal(2)}, terms=0)


def test_initializers_of_an_inlined_branch_are_renamed_in_the_copy_only() -> None:
    """`prepared` compares the caller's protobuf before and after."""
    text = """g (float[2] x) => (float[2] y, float[2] z) {
        y = If (k) <then_branch = t () => (float[2] p) <float[1] c = {2.0}> { p = Mul (x, c) },
                    else_branch = e () => (float[2] q) <float[1] c = {3.0}> { q = Mul (x, c) }>
        z = If (k) <then_branch = t2 () => (float[2] p) <float[1] c = {4.0}> { p = Mul (x, c) },
                    else_branch = e2 () => (float[2] q) <float[1] c = {5.0}> { q = Mul (x, c) }> }"""
    proto = text_model(text, k=np.array(True))
    result = prepared(proto)
    assert len(weights(result)) == 2
    assert_same(proto, result, {"x": normal(2)}, terms=0)


@pytest.mark.parametrize("opset", [11, 17])
def test_dropout_goes(opset: int) -> None:
    text = "g (float[2] x) => (float[2] y) { r = Relu (x) [n] d = Dropout (r) y = Neg (d) }"
    proto = text_model(text, opset=opset)
    result = prepared(proto)
    assert applied(result, "drop-dropout") == ["n"]
    assert ops(result) == {"Relu": 1, "Neg": 1}
    assert_same(proto, result, {"x": normal(2)}, terms=0)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("d, m = Dropout (r)", "its mask is read, or a graph output needs a name of its own"),
        ("d = Dropout (r, ratio, mode)", "it is or may be in training mode"),
        ("d = Dropout (r, ratio, yes)", "it is or may be in training mode"),
    ],
)
def test_dropout_stays(node: str, reason: str) -> None:
    outputs = "float[2] y, bool[2] m" if "m =" in node else "float[2] y"
    text = f"g (float[2] x, bool mode) => ({outputs}) {{ r = Relu (x) {node} y = Neg (d) }}"
    result = prepared(text_model(text, ratio=np.float32(0.5), yes=np.array(True)))
    assert reasons(result, "drop-dropout") == [reason]


def test_random_constants_stay_random() -> None:
    text = "g (float[8] x) => (float[8] y) { b = Bernoulli (half) y = Add (x, b) }"
    result = prepared(text_model(text, half=np.full(8, 0.5, np.float32)))
    assert ops(result) == {"Bernoulli": 1, "Add": 1}


@pytest.mark.parametrize("known", [True, False])
def test_folding_that_fails_is_reported(known: bool) -> None:
    """onnxscript makes an invalid model of the one and stumbles over the other: they are used as they are."""
    text = f"""g (float[6] x{"" if known else ", int64 n"}) => (float[A] y) {{
        s = SplitToSequence (x, n) y = SequenceAt (s, i) }}"""
    proto = text_model(text, i=np.array(0), **({"n": np.array(2)} if known else {}))
    result = prepared(proto)
    assert len(reasons(result, "fold-constants")) == 1
    assert ops(result) == {"SplitToSequence": 1, "SequenceAt": 1}
    assert_same(proto, result, {"x": normal(6)} | ({} if known else {"n": np.array(2)}), terms=0)


def test_dead_code_goes() -> None:
    proto = text_model("g (float[2] x) => (float[2] y) { y = Relu (x) d = Add (x, k) }", k=normal(2))
    result = prepared(proto)
    assert ops(result) == {"Relu": 1}
    assert weights(result) == {}


def test_nothing_of_the_folding_library_is_left_in_the_model() -> None:
    text = "g (float[2,3] x) => (float[2,4] y) { w = Transpose (v) y = MatMul (x, w) }"
    after = io.to_proto(prepared(text_model(text, v=normal(4, 3))).model)
    assert b"onnxscript" not in after.SerializeToString()


def test_functions_are_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x) => (float[2] y) { h = local.twice (x) y = local.twice (h) }
        <domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }"""
    proto = parse_model(text)
    result = prepared(proto)
    assert ops(result) == {"Add": 2}
    np.testing.assert_array_equal(run(result.model, {"x": np.ones(2, np.float32)})[0], [4, 4])


def test_functions_of_another_operator_set_are_of_that_of_the_model() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.minus (x) }
        <domain: "local", opset_import: ["": 13]> minus (a) => (b) { b = Neg (a) }"""
    proto = parse_model(text)
    assert ops(prepared(proto)) == {"Neg": 1}
    assert ops(prepared(onnx.inliner.inline_local_functions(proto, convert_version=True))) == {"Neg": 1}


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (11, "c = BatchNormalization (k, gamma, beta, mean, var)"),
        (17, "c = BatchNormalization (k, gamma, beta, mean, var)"),
        (11, "c = Softmax <axis = 1> (k)"),
        (17, "c = Softmax <axis = 1> (k)"),
        (11, "c = LogSoftmax <axis = 1> (k)"),
        (11, "c = LRN <size = 3> (k)"),
        (17, "g = GlobalMaxPool (k) c = Mul (g, k)"),
        (17, 'c = Resize <mode = "cubic"> (k, , , whole)'),
    ],
)
def test_what_is_folded_is_what_onnxruntime_computes(opset: int, node: str) -> None:
    text = f"g (float[1,3,4,4] x) => (float[1,3,4,4] y) {{ {node} y = Add (x, c) }}"
    proto = text_model(text, opset, k=normal(1, 3, 4, 4), whole=np.array([1, 3, 4, 4]), **batchnorm(3))
    assert_same(proto, prepared(proto, opset=opset), {"x": normal(1, 3, 4, 4, seed=2)}, terms=4)
