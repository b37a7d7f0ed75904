"""Operators of com.microsoft as those of ONNX: in each form that they have, and where they stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from text_models import GATES, applied, assert_same, normal, ops, prepared, reasons, weights

from quark_onnx.engine.opened_model import open_model
from quark_onnx.stages.prepare import Prepared, prepare

B, S, D, HEADS, PAST = 2, 5, 8, 2, 3

FLOATS = {"x": (B, S, D), "z": (B, S, D), "row": (S, D), "bias": (B, HEADS, S, S), "past": (2, B, HEADS, PAST, D // 2)}
CONSTANTS: dict[str, Any] = {
    **{name: normal(D, seed=seed) for seed, name in enumerate(("gamma", "beta", "b"))},
    "w": normal(D, D),
    "k": normal(D, 6),
    "qkv": normal(D, 3 * D),
    "qkv_b": normal(3 * D),
    "zeros": np.zeros(3 * D, np.float32),
    "narrow": normal(D, 20),
    "narrow_b": normal(20),
    "words": normal(30, D),
    "positions": normal(S + 4, D, seed=1),
    "kinds": normal(3, D, seed=2),
    "last": np.array([1, 2]),
    "first": np.array([0]),
    "flat": np.array([B * S, D]),
    "conv": normal(S, S, 3),
    "conv_b": normal(S),
    "deep": normal(S, 1, 3),
}
MASKS = {
    "mask": np.array([[1] * S, [1, 1, 0, 0, 0]]),
    "left": np.array([[1] * S, [0, 0, 1, 1, 1]]),
    "each": np.arange(B * S * S).reshape(B, S, S) % 3 != 1,
    "ends": np.array([S, 3]),
    "both": np.array([S, 3, 0, 1]),
    "long": np.array([[1] * (S + PAST), [0, 1, *[1] * (S + PAST - 2)]]),
    "ids": np.arange(B * S).reshape(B, S) * 7 % 30,
    "types": np.arange(B * S).reshape(B, S) % 3,
    "at": np.arange(B * S).reshape(B, S) % (S + 4),
}


def model(body: str, opset: int = 20, outputs: str = "float[A,E,F] y", **dims: str) -> onnx.ModelProto:
    """The nodes with those inputs and constants of the tables that they read, and `M` for the domain."""
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    kinds = [f"float[{','.join(map(str, shape))}] {name}" for name, shape in FLOATS.items() if name in words]
    kinds += [f"int32[{','.join(map(str, array.shape))}] {name}" for name, array in MASKS.items() if name in words]
    for name, text in dims.items():
        kinds = [kind if kind.split("] ")[1] != name else f"{kind.split('[')[0]}[{text}] {name}" for kind in kinds]
    proto = parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]> g ({", ".join(kinds)}) => ({outputs}) '
        f"{{ {body.replace('M.', 'com.microsoft.')} }}"
    )
    used = {name: array for name, array in CONSTANTS.items() if name in words}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in used.items())
    return proto


def feeds(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    known = {name: normal(*shape, seed=9) for name, shape in FLOATS.items()}
    known |= {name: array.astype(np.int32) for name, array in MASKS.items()}
    return {value.name: known[value.name] for value in proto.graph.input}


def rewritten(body: str, opset: int = 20, outputs: str = "float[A,E,F] y", **dims: str) -> Prepared:
    """Prepared, with the outputs that it had."""
    proto = model(body, opset, outputs, **dims)
    result = prepared(proto, integers=GATES)
    assert_same(proto, result, feeds(proto), terms=64)
    return result


GELUS = {
    "y = M.Gelu (x)": {"Gelu": 1},
    "y = M.BiasGelu (x, b)": {"Add": 1, "Gelu": 1},
    "y = M.FastGelu (x)": {"Gelu": 1},
    "y = M.FastGelu (x, b)": {"Add": 1, "Gelu": 1},
    "y = M.QuickGelu (x)": {"Mul": 2, "Sigmoid": 1},
    "y = M.QuickGelu <alpha = 1.0> (x)": {"Mul": 1, "Sigmoid": 1},
}
RMS = {"Pow": 1, "ReduceMean": 1, "Add": 1, "Sqrt": 1, "Div": 1, "Mul": 1}
NORMS = {
    "y = M.SkipLayerNormalization (x, z, gamma, beta)": {"Add": 1, "LayerNormalization": 1},
    "y = M.SkipLayerNormalization <epsilon = 0.1> (x, row, gamma)": {"Add": 1, "LayerNormalization": 1},
    "y = M.SkipLayerNormalization (x, z, gamma, beta, b)": {"Add": 2, "LayerNormalization": 1},
    "n, , , s = M.SkipLayerNormalization (x, z, gamma, , b) y = Sub (n, s)": {
        "Add": 2,
        "LayerNormalization": 1,
        "Sub": 1,
    },
    "y = M.SkipSimplifiedLayerNormalization <epsilon = 0.1> (x, z, gamma)": RMS | {"Add": 2},
    "n, , , s = M.SkipSimplifiedLayerNormalization (x, z, gamma, b) y = Sub (n, s)": RMS | {"Add": 3, "Sub": 1},
}
PRODUCTS = {
    "y = M.FusedMatMul (x, k)": {"MatMul": 1},
    "y = M.FusedMatMul <alpha = 0.5> (x, k)": {"MatMul": 1},
    "y = M.FusedMatMul <transB = 1, alpha = 0.5> (x, w)": {"MatMul": 1},
    "y = M.FusedMatMul <transB = 1, alpha = 0.5> (x, z)": {"MatMul": 1, "Mul": 1, "Transpose": 1},
    "y = M.FusedMatMul <transA = 1> (x, z)": {"MatMul": 1, "Transpose": 1},
}


LAYERS = {
    'y = M.FusedConv <activation = "Relu", pads = [1, 1]> (x, conv, conv_b)': {"Conv": 1, "Relu": 1},
    'y = M.FusedConv <activation = "Clip", activation_params = [-0.5, 0.75]> (x, conv)': {"Conv": 1, "Clip": 1},
    'y = M.FusedConv <activation = "LeakyRelu", activation_params = [0.25], pads = [1, 1]> (x, conv, conv_b, x)': {
        "Conv": 1,
        "Add": 1,
        "LeakyRelu": 1,
    },
    'y = M.FusedConv <activation = "HardSigmoid", activation_params = [0.25, 0.4], group = 5> (x, deep)': {
        "Conv": 1,
        "HardSigmoid": 1,
    },
    'r = Reshape (x, flat) g = M.FusedGemm <activation = "LeakyRelu", activation_alpha = 0.25, transB = 1> (r, w, b) '
    "y = Unsqueeze (g, first)": {"Reshape": 1, "Gemm": 1, "LeakyRelu": 1, "Unsqueeze": 1},
    'r = Reshape (x, flat) g = M.FusedGemm <activation = "Relu", alpha = 0.5> (r, k) y = Unsqueeze (g, first)': {
        "Reshape": 1,
        "Gemm": 1,
        "Relu": 1,
        "Unsqueeze": 1,
    },
}


@pytest.mark.parametrize("body", [*GELUS, *NORMS, *PRODUCTS, *LAYERS])
def test_as_standard(body: str) -> None:
    assert ops(rewritten(body)) == (GELUS | NORMS | PRODUCTS | LAYERS)[body]


@pytest.mark.parametrize(("opset", "op_type"), [(17, "SkipSimplified"), (18, "SkipSimplified"), (14, "Skip")])
def test_in_other_operator_sets(opset: int, op_type: str) -> None:
    result = rewritten(f"y = M.{op_type}LayerNormalization (x, z, gamma)", opset)
    assert not [node for node in result.model.graph if node.domain]
    assert result.model.opset_imports[""] == max(opset, 17)


def test_a_bias_goes_with_the_product() -> None:
    """Whichever input of the normalization that is."""
    for order in ("h, z", "z, h"):
        result = rewritten(f"h = MatMul (x, w) y = M.SkipLayerNormalization ({order}, gamma, beta, b)")
        first, second = (node for node in result.model.graph if node.op_type == "Add")
        assert first.inputs[0].producer().op_type == "MatMul"
        assert [value.name for value in second.inputs] == [first.outputs[0].name, "z"]


def test_a_simplified_norm_of_onnxruntime_alone() -> None:
    """onnx knows no SimplifiedLayerNormalization."""
    proto = model("y = SimplifiedLayerNormalization <axis = -1, epsilon = 0.1> (x, gamma)", 17)
    result = prepare(open_model(proto), opset=13, integers=GATES)
    assert ops(result) == RMS
    assert_same(proto, result, feeds(proto), terms=64)


EMBEDDINGS = (
    "y, unread = M.EmbedLayerNormalization (ids, types, words, positions, kinds, gamma, beta)",
    "y, unread = M.EmbedLayerNormalization <epsilon = 0.1> (ids, , words, positions, , gamma, beta)",
    "y, unread = M.EmbedLayerNormalization (ids, types, words, positions, kinds, gamma, beta, , at)",
    "n, , s = M.EmbedLayerNormalization (ids, , words, positions, , gamma, beta) y = Sub (n, s)",
    "n, m = M.EmbedLayerNormalization (ids, , words, positions, , gamma, beta, mask) c = Cast <to = 1> (m) "
    "i = Unsqueeze (c, last) y = Sub (n, i)",
)


@pytest.mark.parametrize("body", EMBEDDINGS)
def test_embeddings(body: str) -> None:
    for dims in ({}, dict.fromkeys(("ids", "types", "at", "mask"), "B,S")):
        result = rewritten(body, **dims)
        assert ops(result)["LayerNormalization"] == 1
        assert ops(result)["Gather"] >= 1


ATTENTIONS = {
    "plain": "y = M.Attention <num_heads = 2> (x, qkv, qkv_b)",
    "causal": "y = M.Attention <num_heads = 2, unidirectional = 1, scale = 0.3> (x, qkv, qkv_b)",
    "narrow": "y = M.Attention <num_heads = 2, qkv_hidden_sizes = [8, 8, 4]> (x, narrow, narrow_b)",
    "mask": "y = M.Attention <num_heads = 2, mask_filter_value = -5.0> (x, qkv, qkv_b, mask)",
    "left": "y = M.Attention <num_heads = 2, unidirectional = 1> (x, qkv, qkv_b, left)",
    "mask for each": "y = M.Attention <num_heads = 2> (x, qkv, qkv_b, each)",
    "lengths": "y = M.Attention <num_heads = 2> (x, qkv, qkv_b, ends)",
    "bias": "y = M.Attention <num_heads = 2> (x, qkv, qkv_b, , , bias)",
    "mask and bias": "y = M.Attention <num_heads = 2> (x, qkv, qkv_b, mask, , bias)",
    "past": "y, p = M.Attention <num_heads = 2, unidirectional = 1> (x, qkv, qkv_b, , past)",
    "past and mask": "y, p = M.Attention <num_heads = 2> (x, qkv, qkv_b, long, past)",
    "present alone": "y, p = M.Attention <num_heads = 2> (x, qkv, qkv_b)",
}


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("fixed", [True, False])
def test_weights_of_attention(name: str, fixed: bool) -> None:
    body = ATTENTIONS[name]
    outputs = "float[A,E,F] y" + (", float[G,H,I,J,K] p" if ", p =" in body else "")
    open_ = {} if fixed else {"x": "N,M,8", "mask": "N,M", "left": "N,M", "ends": "N", "each": "N,M,M"}
    result = rewritten(body, outputs=outputs, **open_)
    found = ops(result)
    assert (found["MatMul"], found["Attention"], found["MultiHeadAttention"]) == (3, 0, 1)
    assert found["Add"] == 3
    assert not {"qkv", "qkv_b", "narrow"} & weights(result).keys()


def test_attention_without_bias() -> None:
    """The same as with one of zeros. Without any, onnxruntime ends the process, in many of its versions."""
    result = prepared(model("y = M.Attention <num_heads = 2> (x, qkv)"), integers=GATES)
    assert (ops(result)["MatMul"], ops(result)["Attention"], ops(result)["Add"]) == (3, 0, 0)
    zeros = model("y = M.Attention <num_heads = 2> (x, qkv, zeros)")
    assert_same(zeros, result, feeds(zeros), terms=64)


def test_what_is_behind_is_known_by_the_names_of_dimensions() -> None:
    """Whether a mask has a number for each sample is told by the name of the batch, through all layers."""
    layer = (
        "a{1} = M.Attention <num_heads = 2> ({0}, qkv, qkv_b, ends) o{1} = MatMul (a{1}, w) "
        "n{1} = M.SkipLayerNormalization ({0}, o{1}, gamma, beta) g{1} = M.BiasGelu (n{1}, b) {2} = MatMul (g{1}, w) "
    )
    body = "".join(layer.format(*names) for names in (("x", 1, "d1"), ("d1", 2, "d2"), ("d2", 3, "y")))
    assert ops(rewritten(body, x="N,M,8", ends="N"))["Attention"] == 0
    result = prepared(model(body, x="N,M,8", ends="K"), integers=GATES)
    assert ops(result)["Attention"] == 3


def test_layers_with_the_same_weights_share_the_parts() -> None:
    attention = "M.Attention <num_heads = 2> (IN, qkv, qkv_b)"
    result = rewritten(f"h = {attention.replace('IN', 'x')} y = {attention.replace('IN', 'h')}")
    assert ops(result)["MatMul"] == 6
    assert len([name for name in weights(result) if name.startswith("qkv_b")]) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = M.Attention <num_heads = 2> (x, qkv, qkv_b, both)", "where each sample begins"),
        ("t = Identity (q) v = Add (t, q) y = M.Attention <num_heads = 2> (x, v, qkv_b)", "at run time"),
        ("y = M.Attention <num_heads = 2> (x, qkv, q)", "its bias is computed at run time"),
    ],
)
def test_attention_that_stays(body: str, reason: str) -> None:
    """What is not the product of constant weights, or has no equal."""
    runtime = "float[24] q" if "qkv, q)" in body else "float[8,24] q"
    proto = model(body)
    if " q" in body.replace(" qkv", ""):
        proto.graph.input.append(onnx.parser.parse_graph(f"g ({runtime}) => (float y) {{ }}").input[0])
    result = prepared(proto, integers=GATES)
    assert ops(result)["Attention"] == 1
    assert reason in reasons(result, "attention-weights")[0]


@pytest.mark.parametrize(
    ("body", "opset", "rule", "reason"),
    [
        ("y = M.FusedMatMul <transBatchB = 1> (x, z)", 20, "standard-fused-matmul", "moves its first axis"),
        ('y = M.FusedConv <activation = "Elu"> (x, conv)', 20, "standard-fused-layer", "activation function is Elu"),
        ('y = M.FusedConv <activation = "Clip"> (x, conv)', 20, "standard-fused-layer", "takes 2 numbers"),
        ("n, d = SimplifiedLayerNormalization (x, gamma) y = Sub (n, d)", 17, "standard-rms-norm", "deviation"),
        ("y = SimplifiedLayerNormalization <axis = 1> (x, zz)", 17, "standard-rms-norm", "deviation"),
    ],
)
def test_others_that_stay(body: str, opset: int, rule: str, reason: str) -> None:
    CONSTANTS["zz"] = normal(S, D)
    result = prepare(open_model(model(body, opset)), opset=13, integers=GATES)
    assert reason in reasons(result, rule)[0]
    assert not applied(result, rule)


def test_where_the_operator_set_cannot_be_raised_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quark_onnx.stages.prepare.rewriting.newest_opset", lambda at_most: min(at_most, 16))
    bodies = (
        "y = M.Gelu (x)",
        "y = M.SkipLayerNormalization (x, z, gamma, beta)",
        "y, unread = M.EmbedLayerNormalization (ids, , words, positions, , gamma, beta)",
    )
    for body in bodies:
        result = rewritten(body, 14)
        assert [node.domain for node in result.model.graph] == ["com.microsoft"]
        assert "cannot be raised" in next(one.reason or "" for one in result.log if "standard" in one.rule)


def test_without_static_ranges_only_weights_come_out() -> None:
    """And nothing does of a model that gets no quantizers, or is not to be optimized."""
    body = "h = M.Attention <num_heads = 2> (x, qkv, qkv_b) g = M.FastGelu (h) y = M.FusedMatMul (g, w)"
    proto = model(body)
    assert ops(prepared(proto)) == {"MatMul": 4, "Add": 3, "MultiHeadAttention": 1, "FastGelu": 1}
    for options in ({"quantizers": False}, {"optimize": False, "integers": GATES}):
        assert ops(prepared(proto, **options)) == {"Attention": 1, "FastGelu": 1, "FusedMatMul": 1}
