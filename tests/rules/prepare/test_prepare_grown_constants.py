"""What is folded makes the file smaller, or goes into a layer; what would only make it larger stays computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantized_models import executed_kernels
from text_models import assert_same, normal, ops, prepared, text_model

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.graph import io
from quark_onnx.stages.place.never_quantized import AT_LOAD
from quark_onnx.stages.prepare.grown_constants import SLACK

ROW, SQUARE, SIZES = normal(64), normal(64, 64), np.array([1, 64, 64])
CODES = np.arange(4096, dtype=np.uint8).reshape(64, 64)
X = {"x": normal(1, 64, 64)}


def one_input(nodes: str, **arrays: np.ndarray) -> onnx.ModelProto:
    return text_model(f"g (float[1,64,64] x) => (float[1,64,64] y) {{ {nodes} }}", **arrays)


def stored(proto: onnx.ModelProto) -> int:
    """Bytes of all numbers: initializers, and those that nodes hold."""
    return io.weight_bytes(prepared(proto, optimize=False).model)


GROWN = {
    "zeros": ("z = ConstantOfShape <value = float[1] {0.5}> (s) y = Add (x, z)", {"s": SIZES}),
    "Expand": ("z = Expand (c, s) y = Mul (x, z)", {"c": ROW, "s": SIZES}),
    "Tile": ("z = Tile (c, n) y = Where (m, x, z)", {"c": ROW[None], "n": np.array([64, 1]), "m": SQUARE > 0}),
    "Pad": ("z = Pad (c, p) y = Add (x, z)", {"c": ROW[None], "p": np.array([63, 0, 0, 0])}),
    "a chain": ("z = Expand (c, s) t = Transpose <perm = [0, 2, 1]> (z) u = Exp (t) y = Mul (x, u)", None),
    "codes": ("f = Cast <to = 1> (k) w = Mul (f, step) y = Max (x, w)", {"k": CODES, "step": np.float32(0.01)}),
    "read twice": ("t = Transpose (w) h = Mul (x, t) y = Mul (h, w)", {"w": SQUARE}),
    "two views": ("t = Transpose (w) n = Neg (w) h = Mul (x, t) y = Mul (h, n)", {"w": SQUARE}),
    "a Range": (
        "r = Range (o, l, i) z = Reshape (r, s) y = Add (x, z)",
        {"o": np.float32(0), "l": np.float32(4096), "i": np.float32(1), "s": SIZES},
    ),
}


@pytest.mark.parametrize("name", GROWN)
def test_what_would_only_make_the_file_larger_stays_computed(name: str) -> None:
    nodes, arrays = GROWN[name]
    proto = one_input(nodes, **({"c": ROW, "s": SIZES} if arrays is None else arrays))
    result = prepared(proto)
    assert io.weight_bytes(result.model) <= stored(proto)
    assert_same(proto, result, X, terms=0)


FOLDED = {
    "into a weight": ("z = Expand (c, s) y = MatMul (x, z)", {"c": ROW, "s": SIZES[1:]}, {"MatMul": 1}),
    "into an affine layer": (
        "z = Expand (c, s) h = MatMul (x, w) y = Mul (h, z)",
        {"c": ROW[:1], "s": SIZES[1:2], "w": SQUARE},
        {"MatMul": 1},
    ),
    "a tied weight": ("t = Transpose (w) h = MatMul (x, t) y = MatMul (h, w)", {"w": SQUARE}, {"MatMul": 2}),
    "smaller in the end": (
        "z = Expand (c, s) a = Constant <value_ints = [1]> () r = ReduceSum (z, a) y = Mul (x, r)",
        {"c": ROW, "s": SIZES},
        {"Mul": 1},
    ),
    "as large": ("t = Transpose (w) u = Abs (t) y = Mul (x, u)", {"w": SQUARE}, {"Mul": 1}),
    "two parts": (
        "a = Slice (w, zero, half) b = Slice (w, half, all) h = Concat <axis = 0> (b, a) y = Mul (x, h)",
        {"w": SQUARE, "zero": np.array([0]), "half": np.array([32]), "all": np.array([64])},
        {"Mul": 1},
    ),
    "small": ("z = Expand (c, s) y = Mul (x, z)", {"c": ROW[:1], "s": np.array([1, 1, 64])}, {"Mul": 1}),
    "a shape depends on its numbers": (
        "c = ConstantOfShape <value = float[1] {1}> (s) n = NonZero (c) f = Cast <to = 1> (n) "
        "t = Transpose (f) p = Slice (t, zero, all) q = Concat <axis = 1> (p, p) y = Add (x, q)",
        {"s": np.array([2, 300]), "zero": np.array([0]), "all": np.array([1])},
        {"Add": 1},
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_a_layer_needs_or_is_no_larger_is_folded(name: str) -> None:
    nodes, arrays, left = FOLDED[name]
    proto = one_input(nodes, **arrays)
    if name == "a shape depends on its numbers":
        proto = text_model(f"g (float[1,4] x) => (float[1,4] y) {{ {nodes} }}", **arrays)
    result = prepared(proto)
    assert ops(result) == left
    feed = X if name != "a shape depends on its numbers" else {"x": normal(1, 4)}
    assert_same(proto, result, feed, terms=64)


def test_bodies_hold_no_copies_of_what_is_outside() -> None:
    """A Transpose of a weight in each branch: folded, it would be there twice."""
    branch = "{name} () => (float[1,64,64] {o}) {{ {o}t = Transpose (w) {o} = {op} (x, {o}t) }}"
    then, other = branch.format(name="t", o="a", op="Add"), branch.format(name="e", o="b", op="Sub")
    proto = one_input(
        "s = ReduceSum <keepdims = 0> (x) z = Constant <value_float = 0.0> () c = Greater (s, z) "
        f"y = If (c) <then_branch = {then}, else_branch = {other}>",
        w=SQUARE,
    )
    result = prepared(proto)
    kept = [tensor.const_value for graph in result.model.graphs() for tensor in graph.initializers.values()]
    assert sum(tensor.nbytes for tensor in kept if tensor is not None) < SQUARE.nbytes + SLACK
    assert_same(proto, result, X, terms=0)


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "XINT8"])
def test_onnxruntime_executes_what_it_would_of_a_folded_constant(preset: str) -> None:
    """Quantizers inside the chain would make it compute the chain at each run."""
    text = """g (float[1,8,32,32] x) => (float[1,8,32,32] y) { h = Conv (x, w)
        [e] z = Expand (c, s) [f] q = Transpose <perm = [0, 1, 3, 2]> (z) k = Mul (h, q) y = Conv (k, w) }"""
    proto = text_model(text, w=normal(8, 8, 1, 1), c=normal(32), s=np.array([1, 8, 32, 32]))
    data = [{"x": normal(1, 8, 32, 32, seed=i)} for i in range(2)]
    result = ModelQuantizer(Config(get_default_config(preset))).quantize_model(proto, None, data)
    kernels = executed_kernels(io.load(result.model))
    assert "Expand" not in kernels
    assert (kernels["QLinearConv"], kernels["QLinearMul"]) == (2, 1)
    assert (result.plan.notes["e"], result.plan.notes["f"]) == (AT_LOAD, AT_LOAD)
    assert result.report.stored["quantized"] < 3 * result.report.stored["float"]  # nodes, no 32 KB of numbers
