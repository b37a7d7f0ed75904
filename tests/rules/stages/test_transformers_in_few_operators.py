"""Transformers whose layers are few operators: of onnxruntime's optimizer, for generating, and of operator set 23."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from newer_onnxruntime import needs_opset
from onnx_text import parse_model
from text_models import normal

from quark_onnx import Config, ModelQuantizer, get_default_config

HEADS, WIDTH, STEPS, PAST = 2, 32, 6, 3

HEAD = WIDTH // HEADS
MICROSOFT = "com.microsoft."
FLOAT_PAST = f"float[2,{HEADS},{PAST},{HEAD}]"

ENCODER = (
    14,
    "int32[2,S] ids, int32[2,S] mask",
    "",
    f"""e, unused = M.EmbedLayerNormalization (ids, , words, places, , g0, b0)
    a = M.Attention <num_heads = {HEADS}> (e, qkv, qkv_b, mask)
    o = MatMul (a, w0)  n = M.SkipLayerNormalization (o, e, g0, b0, b1)
    u = MatMul (n, up)  f = M.BiasGelu (u, up_b)
    d = MatMul (f, down)  y = M.SkipLayerNormalization (n, d, g1, b1, b2)""",
    6,
)
DECODER = (
    17,
    f"float[2,S,{WIDTH}] x, float[2,2,{HEADS},{PAST},{HEAD}] past",
    ", float[A,B,C,D,E] present",
    f"""n = LayerNormalization (x, g0, b0)
    a, present = M.Attention <num_heads = {HEADS}, unidirectional = 1> (n, qkv, qkv_b, , past)
    o = MatMul (a, w0)  m, , , s = M.SkipLayerNormalization (o, x, g1, b1, b2)
    u = MatMul (m, up)  f = M.FastGelu (u, up_b)
    d = MatMul (f, down)  e = Add (d, s)  y = M.FusedMatMul <transB = 1> (e, w2)""",
    7,
)
GENERATOR = (
    21,
    f"float[1,S,{WIDTH}] x, {FLOAT_PAST} past_k, {FLOAT_PAST} past_v".replace("[2", "[1"),
    "",
    f"""n = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-6> (x, g0)
    q = MatMul (n, w0)  k = MatMul (n, w1)  v = MatMul (n, w2)
    a, kk, vv = M.GroupQueryAttention <num_heads = {HEADS}, kv_num_heads = {HEADS}, do_rotary = 1>
        (q, k, v, past_k, past_v, lengths, total, cos, sin)
    o = MatMul (a, w3)  m, , , s = M.SkipSimplifiedLayerNormalization <epsilon = 1e-6> (x, o, g1)
    t = MatMul (m, up)  z = M.QuickGelu <alpha = 1.0> (t)  i = MatMul (m, gate)  j = Mul (z, i)
    d = MatMul (j, down)  y = M.SkipSimplifiedLayerNormalization (s, d, g0)""",
    7,
)
STANDARD = (
    23,
    f"float[2,S,{WIDTH}] x, {FLOAT_PAST} past_k, {FLOAT_PAST} past_v",
    "",
    f"""n = RMSNormalization (x, g0)
    q = MatMul (n, w0)  k = MatMul (n, w1)  v = MatMul (n, w2)
    r = RotaryEmbedding <num_heads = {HEADS}> (q, cos_at, sin_at)
    a, kk, vv = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}, is_causal = 1> (r, k, v, , past_k, past_v)
    o = MatMul (a, w3)  s = Add (x, o)  m = RMSNormalization (s, g1)
    t = MatMul (m, up)  z = Sigmoid (t)  i = Mul (t, z)
    d = MatMul (i, down)  y = Add (s, d)""",
    6,
)
MODELS = {"encoder": ENCODER, "decoder": DECODER, "generator": GENERATOR, "standard": STANDARD}

ANGLES = np.outer(np.arange(32), 1 / 100 ** (np.arange(HEAD // 2) / (HEAD // 2)))


def constants() -> dict[str, np.ndarray]:
    weights = {f"w{i}": normal(WIDTH, WIDTH, seed=i) / 4 for i in range(4)}
    weights |= {"qkv": normal(WIDTH, 3 * WIDTH) / 4, "qkv_b": normal(3 * WIDTH) / 8}
    weights |= {"up": normal(WIDTH, 32) / 4, "gate": normal(WIDTH, 32, seed=1) / 4, "down": normal(32, WIDTH) / 6}
    weights |= {"up_b": normal(32) / 8, "words": normal(40, WIDTH), "places": normal(STEPS + 2, WIDTH)}
    weights |= {f"g{i}": 1 + normal(WIDTH, seed=i) / 8 for i in range(2)}
    weights |= {f"b{i}": normal(WIDTH, seed=i) / 8 for i in range(3)}
    weights |= {"cos": np.cos(ANGLES), "sin": np.sin(ANGLES)}
    weights |= {name + "_at": np.repeat(weights[name][None, :STEPS], 2, axis=0) for name in ("cos", "sin")}
    return {name: array.astype(np.float32) for name, array in weights.items()}


def built(name: str, *changes: tuple[str, str]) -> onnx.ModelProto:
    """The model, with each of the texts replaced by another."""
    opset, inputs, outputs, body, _ = MODELS[name]
    needs_opset(opset)
    for old, new in changes:
        assert old in body
        body = body.replace(old, new)
    proto = parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g ({inputs.replace("S", str(STEPS))}) => '
        f"(float[A,B,C] y{outputs}) {{ {body.replace('M.', MICROSOFT)} }}"
    )
    known = constants() | {
        "ends": np.int32([STEPS, 3]),
        "lengths": np.full((1, 1), STEPS + PAST - 1, np.int32),
        "total": np.int32([STEPS + PAST]),
    }
    read = {name for node in proto.graph.node for name in node.input} - {v.name for v in proto.graph.input}
    read -= {name for node in proto.graph.node for name in node.output} | {""}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in sorted(read))
    return proto


def samples(proto: onnx.ModelProto, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng, feeds = np.random.default_rng(seed), []
    for _ in range(count):
        feed = {}
        for value in proto.graph.input:
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feed[value.name] = rng.standard_normal(dims).astype(kind)
            if value.name == "ids":
                feed["ids"] = rng.integers(0, 40, dims).astype(np.int32)
            elif value.name == "mask":
                feed["mask"] = (np.arange(dims[1]) < rng.integers(3, dims[1] + 1, (dims[0], 1))).astype(np.int32)
        feeds.append(feed)
    return feeds


def run(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The first output, all optimizations on."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(["y"], feed)[0] for feed in feeds])


def quantized(proto: onnx.ModelProto, preset: str = "S8S8_AAWS", **fields: Any) -> Any:
    config = replace(get_default_config(preset), per_channel=preset != "FP16", **fields)
    return ModelQuantizer(Config(config)).quantize_model(proto, None, samples(proto, 8, 1))


def decibel(proto: onnx.ModelProto, model: onnx.ModelProto) -> float:
    feeds = samples(proto, 4, 2)
    y, z = run(proto, feeds).astype(float), run(model, feeds).astype(float)
    return float(10 * np.log10((y**2).sum() / ((y - z) ** 2).sum()))


@pytest.mark.parametrize("name", MODELS)
def test_all_weight_products_run_on_integers(name: str) -> None:
    proto, products = built(name), MODELS[name][-1]
    result = quantized(proto)
    assert result.report.fused["MatMul"] == (products, products)
    assert decibel(proto, result.model) > 25
    (whole,) = [why for why in result.report.float_nodes.values() if "multiplies activations" in why]
    assert "one kernel in float is faster" in whole


@pytest.mark.parametrize(("preset", "count"), [("UINT8_DYNAMIC_QUANT", 7), ("MATMUL_NBITS", 7)])
def test_weights_come_out_without_static_ranges_too(preset: str, count: int) -> None:
    proto = built("decoder")
    result = quantized(proto, preset)
    products = [node for node in result.model.graph.node if node.op_type == "MatMul"]
    assert len(products) == count
    made = {output: node.op_type for node in result.model.graph.node for output in node.output}
    assert {made.get(node.input[1]) for node in products} == {"DequantizeLinear"}
    assert decibel(proto, result.model) > 12


@pytest.mark.parametrize("name", ["encoder", "decoder", "generator"])
def test_conversion_to_float16_reaches_them(name: str) -> None:
    """Casts stand at the interface alone."""
    proto = built(name)
    result = quantized(proto, "FP16")
    assert decibel(proto, result.model) > 45
    floats = {value.name for value in proto.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    casts = [node for node in result.model.graph.node if node.op_type == "Cast"]
    assert {node.input[0] for node in casts if node.input[0] in floats} == floats
    assert len(casts) == len(floats) + len(proto.graph.output)


@pytest.mark.parametrize("wide", [False, True])
def test_float16_models(wide: bool) -> None:
    """What stays whole goes back to float16 with the rest."""
    proto = built("encoder")
    half = quantized(proto, "FP16").model
    result = quantized(half, convert_fp16_to_fp32=wide)
    assert decibel(half, result.model) > 25
    kinds = {onnx.TensorProto.DataType.Name(array.data_type) for array in result.model.graph.initializer}
    assert ("FLOAT16" in kinds) is not wide
    assert "MultiHeadAttention" in [node.op_type for node in result.model.graph.node]


def test_weights_that_stay_inside_are_told() -> None:
    """The twin: the mask may say where each sample begins."""
    proto = built("encoder", ("mask)", "both)"), ("e, unused", "both = Concat <axis = 0> (ends, ends)  e, unused"))
    result = quantized(proto)
    assert result.report.fused["MatMul"] == (3, 3)
    assert "the weights inside 'Attention_a' stay float: its mask may hold" in result.report.remarks["*"]
    assert "Attention is not in the operator table" in result.report.float_nodes["Attention_a"]


def test_who_names_a_node_means_its_parts() -> None:
    result = quantized(built("encoder"), nodes_to_exclude=("Attention_a",))
    assert result.report.fused["MatMul"] == (3, 6)
    result = quantized(built("encoder"), nodes_to_quantize=("Attention_a",))
    assert result.report.fused["MatMul"] == (3, 6)
    assert "not among nodes_to_quantize" in result.report.float_nodes["MatMul_u"]


def test_a_past_without_a_present_that_is_read() -> None:
    """onnxruntime wants an Attention to have both: the outputs that nobody reads stay, those of others go."""
    result = quantized(built("standard"))
    (attention,) = [node for node in result.model.graph.node if node.op_type == "Attention"]
    assert len(attention.output) == 3
