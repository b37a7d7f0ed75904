"""Which inputs say what is padding, and by which numbers: told by what they hide, not by their names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from quantized_models import graph
from text_models import normal

from quark_onnx.graph import io
from quark_onnx.graph.mask_inputs import MaskInput, mask_inputs
from quark_onnx.graph.passes import infer_shapes

INF = np.float32(np.inf)
MODEL = """({TYPE}[N,T] a, int64[N,T] ids{MORE}) => (float[N,T,8] y) {
    x = Gather (table, ids) q = MatMul (x, w) k = Transpose <perm = [0,2,1]> (x) s = MatMul (q, k)
    {HIDE} p = Softmax <axis = -1> (z) y = MatMul (p, x) }"""
CONSTANTS = {
    "table": normal(10, 8),
    "w": normal(8, 8),
    "one": np.array([1]),
    "unit": np.float32(1),
    "huge": np.float32(-1e4),
    "none": -INF,
    "zero": np.float32(0),
    "count": np.int64(0),
    "pad": np.int64(1),
    "causal": np.triu(np.full((4, 4), -INF), 1),
    "dims": np.array([1, 4, 4]),
    "ends": np.array([0]),
    "places": np.arange(4).reshape(1, 4),
}
ROWS = "r = Unsqueeze (a, one) "
CASTS = ROWS + "f = Cast <to = 1> (r) b = Cast <to = 9> (r) n = Not (b) "

PADDING = {
    "1 - mask": ("int64", "i = Sub (unit, f) m = Mul (i, huge) z = Add (s, m)", "zero"),
    "mask - 1": ("int64", "i = Sub (f, unit) h = Neg (i) m = Mul (h, huge) z = Add (s, m)", "zero"),
    "mask": ("float", "m = Mul (f, huge) z = Add (s, m)", "nonzero"),
    "a branch": ("bool", "z = Where (b, none, s)", "nonzero"),
    "its negation": ("bool", "z = Where (n, none, s)", "zero"),
    "compared": ("int64", "c = Equal (r, count) z = Where (c, none, s)", "zero"),
    "less than 1": ("int64", "c = Less (r, pad) z = Where (c, none, s)", "zero"),
    "no number twice": (
        "int64",
        "i = Sub (unit, f) c = Cast <to = 9> (i) m = Where (c, none, i) z = Add (s, m)",
        "zero",
    ),
    "and order": ("int64", "o = GreaterOrEqual (places, r_) c = And (o, b) z = Where (c, s, none)", "zero"),
    "or order": ("int64", "o = Less (places, r_) c = Or (n, o) z = Where (c, none, s)", "zero"),
    "in a causal mask": (
        "int64",
        "e = Add (causal, f) c = Equal (e, zero) m = Where (c, none, causal) z = Add (s, m)",
        "zero",
    ),
    "in a causal mask that is computed": (
        "int64",
        """l = ConstantOfShape <value = float[1] {-1e9}> (dims) t = Trilu <upper = 1> (l, pad) o = Squeeze (t, ends)
        e = Add (o, f) c = Equal (e, zero) m = Where (c, none, t) z = Add (s, m)""",
        "zero",
    ),
    "one mask, then the other": ("bool", "o = Less (places, r_) t = Where (o, none, s) z = Where (b, t, none)", "zero"),
    "inside the other": ("bool", "o = Less (places, r_) t = Where (b, s, none) z = Where (o, none, t)", "zero"),
}


def inputs(kind: str, hide: str, dims: str = "2,4", more: str = "") -> tuple[MaskInput, ...]:
    text = MODEL.replace("{TYPE}", kind).replace("{HIDE}", hide).replace("{MORE}", more)
    text = text.replace("[N,T] a", f"[{dims}] a").replace("N,T", "2,4")
    return mask_inputs(graph(text, **CONSTANTS))


@pytest.mark.parametrize("way", PADDING)
def test_padding_is_told_by_what_is_hidden(way: str) -> None:
    kind, hide, padding = PADDING[way]
    more = ", int64[4,1] r_" if "r_" in hide else ""
    assert inputs(kind, CASTS + hide, more=more) == (MaskInput("a", padding),)


def test_a_mask_that_is_added() -> None:
    assert inputs("float", ROWS + "z = Add (s, r)") == (MaskInput("a", "low"),)
    assert inputs("float", ROWS + "l = Cast <to = 1> (r) z = Sub (s, l)") == (MaskInput("a", "low"),)


WHOLE = """({TYPE}[2,4] a, float[2,4,8] x) => (float[2,4,8] y) { {MASK} y = {ATTENTION} }"""
ONNX = "Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, m)"
FUSED = "com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, x, , {0})"
FOUR = "u = Unsqueeze (a, ends) {} m = Expand (c, dims)"


@pytest.mark.parametrize(
    ("kind", "mask", "attention", "padding"),
    [
        ("bool", FOUR.format("c = Identity (u)"), ONNX, "zero"),
        ("bool", FOUR.format("c = Not (u)"), ONNX, "nonzero"),
        ("float", FOUR.format("c = Identity (u)"), ONNX, "low"),
        ("int32", "", FUSED.format("a"), "zero"),
        ("float", FOUR.format("c = Identity (u)"), FUSED.format(", m"), "low"),
    ],
    ids=["true for tokens", "true for padding", "added", "of com.microsoft", "added in com.microsoft"],
)
def test_masks_of_whole_attentions(kind: str, mask: str, attention: str, padding: str) -> None:
    text = WHOLE.replace("{TYPE}", kind).replace("{MASK}", mask).replace("{ATTENTION}", attention)
    proto = parse_model(f'<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]> g {text}')
    for name, array in {"ends": np.array([1, 2]), "dims": np.array([2, 1, 4, 4])}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = io.load(proto)
    infer_shapes(model)
    assert mask_inputs(model) == (MaskInput("a", padding),)


NONE = {
    "queries and keys": ("bool", "z = Where (a, s, none)", "4,4"),
    "queries and keys, added": ("float", "z = Add (s, a)", "4,4"),
    "positions": ("int64", CASTS + "o = Less (places, r) z = Where (o, none, s)", "2,4"),
    "tokens": ("int64", CASTS + "t = Gather (table, a) c = Equal (r, pad) z = Where (c, none, s)", "2,4"),
    "a factor": ("float", ROWS + "z = Mul (s, r)", "2,4"),
    "of a Sigmoid": ("bool", CASTS + "m = Where (b, s, none) g = Sigmoid (m) z = Add (s, g)", "2,4"),
    "nothing hidden": ("bool", CASTS + "g = Where (b, s, zero) z = Add (s, g)", "2,4"),
    "both hidden": ("bool", CASTS + "g = Where (b, none, huge) z = Add (s, g)", "2,4"),
}


@pytest.mark.parametrize("way", NONE)
def test_other_inputs_are_no_padding_masks(way: str) -> None:
    assert inputs(*NONE[way]) == ()


def test_positions_that_count() -> None:
    numbers = np.array([[1, 1, 0], [2, 0, 0]])
    kept = [[True, True, False], [True, False, False]]
    assert MaskInput("a", "zero").kept(numbers).tolist() == kept
    assert MaskInput("a", "zero").kept(numbers > 0).tolist() == kept
    assert MaskInput("a", "nonzero").kept(numbers == 0).tolist() == kept
    assert MaskInput("a", "low").kept(np.where(numbers == 0, -INF, np.float32(0))).tolist() == kept
