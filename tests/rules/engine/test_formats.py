"""Every number format, written into graphs: what onnxruntime computes is what numpy computes of the plan."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from newer_onnxruntime import needs_opset, needs_version, older_than
from quantized_models import Feed, Made, constants, feeds, graph, placed, quantized, run

from quark_onnx.core.number_formats import TYPES
from quark_onnx.engine.activation_walk import Frontier, walk
from quark_onnx.engine.compare import quantized_values, tensor_sqnr
from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.onnxruntime_ledger import WITH_BIAS
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, Node, io
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import dequantize, quantize, stored_codes
from quark_onnx.stages.place.storage_types import WIDE_ACTIVATIONS

EPS = 2.0**-24
on_x64 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors, other kernels")
LAYERS = {
    "Conv": "(float[1,4,6,6] x) => (float[1,5,4,4] y) <float[5,4,3,3] w, float[5] b> { [n] y = Conv (x, w, b) }",
    "Gemm": "(float[3,40] x) => (float[3,6] y) <float[40,6] w, float[6] b> { [n] y = Gemm (x, w, b) }",
    "Gemm, transposed": "(float[3,40] x) => (float[3,6] y) <float[6,40] w, float[1,6] b> "
    "{ [n] y = Gemm <transB=1> (x, w, b) }",
    "MatMul": "(float[2,3,40] x) => (float[2,3,6] y) <float[40,6] w, float[6] b> "
    "{ [n] h = MatMul (x, w) [a] y = Add (h, b) }",
    "MatMul, weight on the left": "(float[40,3] x) => (float[6,3] y) <float[6,40] w> { [n] y = MatMul (w, x) }",
}
PER_CHANNEL = {"per_channel": True}
BYTES = {"activation_type": "uint8"}
ALONE = {"WeightsOnly": True}
DYNAMIC = {"use_dynamic_quant": True}

KINDS: dict[str, dict[str, Any]] = {
    **{
        f"weights {name}": BYTES | {"weight_type": name} for name in ("int2", "uint2", "uint3", "int4", "int6", "uint7")
    },
    **{f"weights {name}": {"activation_type": "int16", "weight_type": name} for name in ("int16", "uint11")},
    **{f"activations {name}": {"activation_type": name} for name in ("int2", "uint3", "uint4", "int5", "uint10")},
    "activations int7, strict": {"activation_type": "int7", "ActivationSymmetric": True, "StrictSymmetric": True},
    "7-bit weights": BYTES | {"reduce_range": True},
    "weights int4, per channel": BYTES | PER_CHANNEL | {"weight_type": "int4"},
    "int4 in blocks": BYTES | {"weight_type": "int4", "BlockSize": 16},
    "uint4 in blocks that do not come out": BYTES | {"weight_type": "uint4", "BlockSize": 7},
    "int8 in blocks": BYTES | {"BlockSize": 16},
    "one block": BYTES | {"weight_type": "uint5", "BlockSize": 64},
    "8-bit bias": {"Int32Bias": False},
    "16-bit bias": BYTES | {"Int16Bias": True},
    "8-bit bias, powers of two": BYTES | {"Int32Bias": False, "UsePowerOf2Scale": True},
    "8-bit bias, per channel": PER_CHANNEL | {"Int32Bias": False},
    "float bias": BYTES | {"QuantizeBias": False},
    "int4 alone": ALONE | {"weight_type": "int4"},
    "int8 alone, in blocks": ALONE | {"BlockSize": 16},
    "int8 alone, per channel": ALONE | PER_CHANNEL,
    "uint2 alone": ALONE | {"weight_type": "uint2"},
    "uint13 alone": ALONE | {"weight_type": "uint13"},
    "at run time": DYNAMIC,
    "at run time, uint8 per channel": DYNAMIC | BYTES | PER_CHANNEL | {"weight_type": "uint8"},
    "at run time, int4": DYNAMIC | {"weight_type": "int4"},
    "at run time, int8 in blocks": DYNAMIC | {"BlockSize": 16},
}


def opset(text: str, fields: dict[str, Any]) -> Model:
    """The model at the operator set that all types need."""
    needed = 25 if "2" in fields.get("weight_type", "").removeprefix("u")[3:] else 21
    needs_opset(needed)
    return graph(text, opset=needed)


def reading(made: Made, name: str, array: np.ndarray) -> np.ndarray:
    """What the layer reads instead of an input, a weight or a bias, by the plan alone."""
    site = made.plan.sites.get(name)
    if site is None:
        return array
    if site.role == "dynamic":  # the specification of DynamicQuantizeLinear
        low, high = min(array.min(), np.float32(0)), max(array.max(), np.float32(0))
        scale = np.float32(high - low) / np.float32(255)
        zero = np.clip(np.rint(-low / scale), 0, 255)
        return np.float32((np.clip(np.rint(array / scale) + zero, 0, 255) - zero) * scale)
    if site.factors and site.format.bits == 32:
        sx, sw = (made.plan.qparams_of(factor).scale for factor in site.factors)
        step = integer_bias.scale(sx, sw)
        return (
            (integer_bias.codes(array.reshape(-1), step) * step.astype(np.float64))
            .astype(np.float32)
            .reshape(array.shape)
        )
    q, integers = made.plan.qparams_of(name), made.plan.coded(name)
    if integers is not None:
        return dequantize(integers.codes, q, site.format)
    codes = stored_codes(array, q, site.format) if site.role == "activation" else quantize(array, q, site.format)
    return dequantize(codes.astype(np.int32), q, site.format)


def layer(text: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Conv, Gemm or MatMul in float64."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    if "Conv" in text:
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
        product = np.einsum("nchwij,ocij->nohw", windows, w)
        return product if b is None else product + b.reshape(1, -1, 1, 1)
    product = w @ x if "(w, x)" in text else x @ (w.T if "transB" in text else w)
    return product if b is None else product + b


def expected(made: Made, text: str, feed: Feed, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest output that float32 sums in any order can come to.

    A sum of n products is off by at most n·eps·Σ|products|; a quantizer behind it is monotonic, so that the ends of
    that interval have the outermost codes. blur: how far every input may be off besides.
    """
    arrays = constants(made.model)
    x, w = reading(made, "x", feed["x"]), reading(made, "w", arrays["w"])
    b = reading(made, "b", arrays["b"]) if "b" in arrays else None
    y = layer(text, x, w, b)
    slack = 2 * (x.size + 2) * EPS * layer(text, abs(x), abs(w), None if b is None else abs(b))
    slack += blur * layer(text, np.full_like(x, abs(x).max()), abs(w), None)
    return tuple(reading(made, "y", end.astype(np.float32)) for end in (y - slack, y + slack))  # type: ignore[return-value]


def ulp(array: np.ndarray) -> np.ndarray:
    return 4 * EPS * np.abs(array)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("text", LAYERS.values(), ids=LAYERS)
def test_onnxruntime_computes_what_the_plan_says(text: str, kind: dict[str, Any]) -> None:
    """As written: to the rounding of float32 sums. Optimized: one step of the output more, for the order of roundings
    and the int32 bias that onnxruntime makes of a float one; or for its product of floats with integer weights, that
    rounds inputs to 8 bits, 1/254 of the largest one.
    """
    model = opset(text, kind)
    data = feeds(model, 2)
    made = quantized(model, data, **kind)
    assert "n" in made.plan.nodes
    nbits = row(made).kernel == "MatMulNBits"
    step = float(made.plan.qparams_of("y").scale) if "y" in made.plan.sites else 0.0
    for feed in data:
        low, high = expected(made, text, feed)
        raw, optimized = (run(made.quantized, feed, optimized=kind)[0] for kind in (False, True))
        assert np.all((raw >= low - ulp(low)) & (raw <= high + ulp(high)))
        if nbits:
            low, high = expected(made, text, feed, blur=1.01 / 254)
        assert np.all((optimized >= low - ulp(low) - step) & (optimized <= high + ulp(high) + step))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_simulation_is_not_the_float_model(kind: dict[str, Any]) -> None:
    """The test above can fail: the float model is far outside of what the plan says."""
    text = LAYERS["Gemm"]
    model = opset(text, kind)
    data = feeds(model)
    low, high = expected(quantized(model, data, **kind), text, data[0])
    y = run(model, data[0])[0]
    assert not np.all((y >= low) & (y <= high))


def row(made: Made, name: str = "n") -> Row:
    return next(row for row in ledger(made.model, made.plan, made.quantized) if row.node == name)


def node(model: Model, name: str) -> Node:
    (found,) = (node for node in model.graph if node.name == name)
    return found


def stored(made: Made, index: int = 1, name: str = "n") -> str:
    """ONNX type of the integers behind an input of a node."""
    value = node(made.quantized, name).inputs[index]
    producer = None if value is None else value.producer()
    assert producer is not None
    assert producer.op_type == "DequantizeLinear"
    codes = producer.inputs[0]
    assert codes is not None
    assert codes.const_value is not None
    return str(codes.const_value.dtype.name)


CHAIN = "(float[2,3,40] x) => (float[2,3,6] y) <float[40,36] w, float[36] b, float[36,6] v> { [n] h = MatMul (x, w) "
CHAIN += "[a] g = Add (h, b) [r] f = Relu (g) [m] y = MatMul (f, v) }"


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [name for name, (bits, _) in TYPES.items() if bits not in (8, 16)])
def test_narrow_activations_are_clipped_to_their_grid_bit_for_bit(dtype: str, symmetric: bool) -> None:
    """Far outside, at the ends, on ties: the codes in the graph are those of the narrow quantizer."""
    model = graph("(float[2,3,40] x) => (float[2,3,36] y) <float[40,36] w> { [n] y = MatMul (x, w) }", opset=21)
    made = quantized(model, activation_type=dtype, ActivationSymmetric=symmetric)
    site, q = made.plan.sites["x"], made.plan.qparams_of("x")
    (clip,) = (n for n in made.quantized.graph if n.name == "x_Clip")
    codes = clip.outputs[0].consumers()[0].outputs[0].name or ""
    spread = np.linspace(site.format.lo - 3, site.format.hi + 3, 239) - q.zero_point
    x = np.concatenate([spread * q.scale, [1e9]]).astype(np.float32).reshape(2, 3, 40)
    x[:, 0] = (np.rint(spread[:80].reshape(2, 40)) + 0.5) * q.scale
    (found,) = Runner(io.with_outputs(made.quantized, [codes]), [codes], optimized=False)({"x": x})
    assert found.dtype == site.format.dtype
    np.testing.assert_array_equal(found, quantize(x, q, site.format))
    np.testing.assert_array_equal(found, stored_codes(x, q, site.format))


def test_layers_are_compared_in_front_of_the_clip() -> None:
    text = "(float[1,4,6,6] x) => (float[1,4,2,2] y) <float[5,4,3,3] w, float[4,5,3,3] v> "
    text += "{ h = Conv (x, w) f = Relu (h) y = Conv (f, v) }"
    made = quantized(graph(text, opset=21), activation_type="uint6")
    pairs = quantized_values(made.quantized)
    assert pairs == {"x": "x_dequantized", "f": "f_dequantized", "y": "y"}
    ratios = tensor_sqnr(made.model, made.quantized, feeds(made.model), pairs, optimized=False)
    assert min(ratios.values()) > 20


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_types_that_onnx_has_need_no_clip(dtype: str) -> None:
    made = quantized(graph(CHAIN, opset=21), activation_type=dtype)
    assert "Clip" not in {n.op_type for n in made.quantized.graph}


@pytest.mark.parametrize("kind", [{"activation_type": "uint5"}, {"activation_type": "int2"}, DYNAMIC, ALONE], ids=str)
def test_the_walk_carries_what_the_whole_model_computes(kind: dict[str, Any]) -> None:
    """Codes behind the Clip where there is one; floats where the quantizer works at run time.

    Small integers and powers of two: no sum is rounded, in whatever order it is taken.
    """
    whole = {name: np.rint(array) for name, array in constants(graph(CHAIN)).items()}
    model = graph(CHAIN, opset=21, **whole)
    data = [{"x": np.rint(2 * feed["x"])} for feed in feeds(model)]
    made = quantized(model, data, UsePowerOf2Scale=True, **kind)
    seen: list[np.ndarray] = []

    def visit(layer: Node, frontier: Frontier, plan: Any) -> Any:
        if layer.name == "m":
            seen.extend(frontier.rounded["f"])
        return plan

    walk(model, made.plan, data, ["n", "m"], visit, 1 << 28)
    static = "f" in made.plan.qparams
    (reader,) = (n for n in made.quantized.graph if n.name == "m")
    quantizer = reader.inputs[0].producer()
    value = quantizer.inputs[0].name if static else "f"
    for feed, codes in zip(data, seen, strict=True):
        (computed,) = Runner(io.with_outputs(made.quantized, [value]), [value], optimized=False, threads=1)(feed)
        assert codes.dtype == computed.dtype
        np.testing.assert_array_equal(codes, computed)


WIDER = {
    "2-bit weights of products": (LAYERS["Gemm"], BYTES | {"weight_type": "int2"}, "INT4", "2-bit weights"),
    "2-bit weights of products alone": (LAYERS["MatMul"], ALONE | {"weight_type": "uint2"}, "UINT4", "2-bit weights"),
    "2-bit weights beside bytes": (LAYERS["Conv"], BYTES | {"weight_type": "int2"}, "INT4", "2-bit weights"),
    "2-bit weights, else": (LAYERS["Conv"], ALONE | {"weight_type": "int2"}, "INT2", ""),
    "2-bit weights beside 16": (LAYERS["Conv"], {"activation_type": "int16", "weight_type": "int2"}, "INT2", ""),
    "8 bits in blocks": (LAYERS["MatMul"], BYTES | {"BlockSize": 16}, "INT16", "8-bit weights in blocks"),
    "8 bits in blocks, run time": (LAYERS["MatMul"], DYNAMIC | {"BlockSize": 16}, "INT16", "8-bit weights in blocks"),
    "5 bits in blocks": (LAYERS["MatMul"], BYTES | {"weight_type": "uint5", "BlockSize": 16}, "UINT16", "in blocks"),
    "8 bits in blocks, Gemm": (LAYERS["Gemm"], BYTES | {"BlockSize": 16}, "INT16", "8-bit weights in blocks"),
    "8 bits in blocks alone": (LAYERS["MatMul"], ALONE | {"BlockSize": 16}, "INT8", ""),
    "8 bits in blocks beside 16": (LAYERS["MatMul"], {"activation_type": "int16", "BlockSize": 16}, "INT8", ""),
    "8 bits": (LAYERS["MatMul"], BYTES, "INT8", ""),
}


@pytest.mark.parametrize(("text", "kind", "dtype", "why"), WIDER.values(), ids=WIDER)
def test_weights_are_stored_wider_where_kernels_fail(text: str, kind: dict[str, Any], dtype: str, why: str) -> None:
    made = quantized(opset(text, kind), **kind)
    assert stored(made) == dtype
    assert made.plan.remarks.get("w", "").endswith(why) if why else "w" not in made.plan.remarks


@pytest.mark.parametrize("dtype", ["int2", "uint3", "int4", "int5", "uint12", "int8"])
def test_activations_are_stored_in_bytes_at_least(dtype: str) -> None:
    plan = placed(graph(LAYERS["Conv"], opset=21), activation_type=dtype)
    bits, _ = TYPES[dtype]
    assert plan.sites["x"].format.storage_bits == (16 if bits > 8 else 8)
    assert (WIDE_ACTIVATIONS in plan.remarks.get("*", "")) is (bits <= 4)


def test_two_remarks_on_all_activations_are_both_kept() -> None:
    text = "(float[2,4] x) => (float[2,4] y) <float[4,4] w> "
    text += "{ h = MatMul (x, w) y = MatMul (h, w) }"
    plan = placed(graph(text, opset=21), TensorQuantOverrides={"h": [{"quant_type": "int4"}]})
    assert WIDE_ACTIVATIONS in plan.remarks["*"]
    assert "stored as uint8" in plan.remarks["*"]


def test_signed_activations_around_a_matmul_with_an_add() -> None:
    """From opset 21 on onnxruntime 1.31 makes an invalid graph of them; stored as uint8, the model must load."""
    made = quantized(graph(LAYERS["MatMul"], opset=21))
    assert made.plan.sites["x"].format.dtype == "uint8"
    Runner(made.quantized)


BLOCKS = {"weight_type": "int4", "BlockSize": 16}


@pytest.mark.parametrize(
    ("layer", "axis", "shape"),
    [
        ("Gemm", 0, (3, 6)),
        ("Gemm, transposed", 1, (6, 3)),
        ("MatMul", 0, (3, 6)),
        ("MatMul, weight on the left", 1, (6, 3)),
    ],
)
def test_blocks_lie_along_the_input_axis(layer: str, axis: int, shape: tuple[int, ...]) -> None:
    made = quantized(graph(LAYERS[layer], opset=21), **BLOCKS)
    weight = node(made.quantized, "n").inputs[0 if "left" in layer else 1]
    assert weight is not None
    dq = weight.producer()
    assert dq is not None
    assert (dq.attributes.get_int("axis", -9), dq.attributes.get_int("block_size", -9)) == (axis, 16)
    assert [value.const_value.shape.numpy() for value in dq.inputs[1:]] == [shape, shape]
    assert "b" not in made.plan.sites  # int32 codes would need one scale per output


def test_blocks_are_for_matrices_and_leave_the_bias_of_others_alone() -> None:
    made = quantized(graph(LAYERS["Conv"], opset=21), per_channel=True, **BLOCKS)
    assert (made.plan.sites["w"].format.axis, made.plan.sites["w"].format.block) == (0, None)
    assert made.plan.sites["b"].format.bits == 32


@pytest.mark.parametrize("layer", ["Conv", "Gemm", "Gemm, transposed"])
@pytest.mark.parametrize(
    ("kind", "dtype"), [({"Int32Bias": False}, "INT8"), ({"Int16Bias": True}, "INT16"), ({}, "INT32")]
)
def test_biases_have_a_scale_of_their_own_unless_they_are_int32(layer: str, kind: dict[str, Any], dtype: str) -> None:
    made = quantized(graph(LAYERS[layer], opset=21), per_channel=True, **kind)
    assert stored(made, 2) == dtype
    assert made.plan.sites["b"].factors == ("x", "w")
    assert ("b" in made.plan.qparams) is (dtype != "INT32")
    if dtype != "INT32":
        values = constants(made.model)["b"]
        assert made.plan.qparams_of("b").scale == np.float32(
            abs(values).max() / np.float64(2 ** int(dtype[3:]) // 2 - 1)
        )


def test_narrow_biases_do_not_raise_the_scale_of_the_weight() -> None:
    """|b| = 3e4 is far beyond int32 at sx · sw; with a scale of its own it is not."""
    arrays = {"w": np.full((5, 4, 3, 3), 1e-5, np.float32), "b": np.full(5, 3e4, np.float32)}
    for kind, raised in (({}, True), ({"Int16Bias": True}, False), ({"QuantizeBias": False}, False)):
        made = quantized(graph(LAYERS["Conv"], opset=21, **arrays), **kind, weight_pairs="off")
        assert bool(made.plan.qparams_of("w").scale > np.float32(1.01e-5 / 127)) is raised


def test_a_float_bias_stays_an_initializer() -> None:
    made = quantized(graph(LAYERS["Conv"]), QuantizeBias=False)
    assert node(made.quantized, "n").inputs[2].name == "b"
    assert "b" not in made.plan.sites


THREE = (
    "(float[2,3,40] x) => (float[2,3,36] y, float[2,3,36] z, float[2,3,40] s, float[2,3,40] r) "
    "<float[40,36] q, float[40,36] k, float[40] c> "
    "{ [t] s = Tanh (x) [a] y = MatMul (s, q) [b] h = MatMul (s, k) [e] z = Erf (h) [u] r = Mul (s, c) }"
)


def test_one_tensor_is_quantized_once_at_run_time_and_others_read_it_as_it_is() -> None:
    made = quantized(graph(THREE), **DYNAMIC)
    (quantizer,) = (n for n in made.quantized.graph if n.op_type == "DynamicQuantizeLinear")
    restored = node(made.quantized, "a").inputs[0]
    assert restored is node(made.quantized, "b").inputs[0]
    assert restored.producer().inputs[0] is quantizer.outputs[0]
    assert node(made.quantized, "u").inputs[0].name == "s"
    assert made.quantized.graph.outputs[2].producer().op_type == "Tanh"
    assert made.plan.nodes.keys() == {"a", "b"}
    assert not made.plan.qparams.keys() & {"s", "y"}
    assert "use_dynamic_quant" in made.plan.notes["u"]


def test_weights_alone_touch_nothing_else() -> None:
    made = quantized(graph(THREE), **ALONE)
    assert {site.role for site in made.plan.sites.values()} == {"weight"}
    assert made.plan.nodes == {"a": ("q",), "b": ("k",)}
    assert "WeightsOnly" in made.plan.notes["u"]
    assert [n.op_type for n in made.quantized.graph if "Linear" in n.op_type] == ["DequantizeLinear"] * 2


WITH_BIASES = "1.25"
"""The first onnxruntime that makes a MatMulNBits of a product and its bias."""

LEDGER = {
    "4 bits in blocks": ("Gemm", ALONE | BLOCKS, "MatMulNBits"),
    "8 bits": ("MatMul", ALONE, "MatMulNBits"),
    "blocks of 8": ("MatMul", ALONE | BLOCKS | {"BlockSize": 8}, "the kernel takes blocks of 16, 32, 64, …, not of 8"),
    "blocks of 24": ("MatMul", ALONE | BLOCKS | {"BlockSize": 24}, "blocks of 16, 32, 64, …, not of 24"),
    "16 bits": ("MatMul", ALONE | {"weight_type": "int16"}, "int16 has no kernel beside floats"),
    "transposed": ("Gemm, transposed", ALONE | BLOCKS, "stands on the right and is not stored transposed"),
    "Conv alone": ("Conv", ALONE, "only its weight is integer, and Conv has no kernel for that"),
    "at run time": ("MatMul", DYNAMIC, "DynamicQuantizeMatMul"),
    "Gemm at run time": ("Gemm", DYNAMIC, "QGemm"),
    "Gemm at run time, transposed": ("Gemm, transposed", DYNAMIC, "QGemm"),
    "Conv at run time": ("Conv", DYNAMIC, "Conv has no kernel for an input that is quantized at run time"),
    "4 bits at run time": ("Gemm", DYNAMIC | {"weight_type": "int4"}, "int4 has no integer kernel"),
    "blocks beside bytes": ("Gemm", BLOCKS, "its weight has a scale per block"),
    "simulated activations": ("Conv", {"activation_type": "uint6"}, "6 bits are simulated: a Clip stands in front"),
    "simulated weights": ("Conv", {"weight_type": "int6"}, "QLinearConv"),
    "8-bit bias": ("Conv", {"Int32Bias": False}, "its bias has 8 bits, the kernel adds int32"),
    "16-bit bias": ("Gemm", {"Int16Bias": True}, "its bias has 16 bits, the kernel adds int32"),
    "float bias": ("Gemm", {"QuantizeBias": False}, "QGemm"),
}


@on_x64
@pytest.mark.parametrize(("layer", "kind", "found"), LEDGER.values(), ids=LEDGER)
def test_the_ledger_names_the_kernel_or_the_reason(layer: str, kind: dict[str, Any], found: str) -> None:
    told = row(quantized(graph(LAYERS[layer], opset=21), **kind))
    if found == "MatMulNBits" and older_than(WITH_BIASES):
        found = WITH_BIAS
    if " " in found:
        assert told.status == "float"
        assert found in told.reason
    else:
        assert (told.status, told.kernel, told.reason) == ("integer", found, "")


@on_x64
def test_a_relu_does_not_keep_a_gemm_from_its_kernel() -> None:
    """onnxruntime would fuse Gemm, bias and Relu to a float kernel before it looks at the weight."""
    needs_version(WITH_BIASES, "MatMulNBits with a bias")
    text = LAYERS["Gemm"].replace("y = Gemm (x, w, b)", "h = Gemm (x, w, b) [r] y = Relu (h)")
    for kind in (ALONE | BLOCKS, DYNAMIC):
        assert row(quantized(graph(text, opset=21), **kind)).status == "integer"
