"""What random models (tests/fuzz) have found, in the smallest model that shows it, and its neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from newer_onnxruntime import needs_version
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, Result, get_default_config
from quark_onnx.quantsim import QuantizationSimModel


def quantized(model: onnx.ModelProto, preset: str = "S8S8_AAWS", samples: int = 6, **fields: Any) -> Result:
    """Quantized on normal numbers, in the types and shapes of the inputs; the result is valid."""
    kinds = {value.name: value.type.tensor_type for value in model.graph.input}
    shapes = {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in kinds.items()}
    types = {name: onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) for name, kind in kinds.items()}
    feeds = [{name: normal(*shapes[name], seed=i).astype(types[name]) for name in kinds} for i in range(samples)]
    result = ModelQuantizer(replace(get_default_config(preset), **fields)).quantize_model(model, None, feeds)
    onnx.checker.check_model(result.model, full_check=True)
    return result


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5,), (1, 5)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_gemm_adds_a_number_or_a_row(shape: tuple[int, ...], per_channel: bool) -> None:
    model = text_model("g (float[3,4] x) => (float[3,5] y) { y = Gemm (x, w, c) }", w=normal(4, 5), c=normal(*shape))
    result = quantized(model, per_channel=per_channel)
    assert result.report.fused["Gemm"] == (1, 1)
    assert result.report.sqnr["y"] > 35


@pytest.mark.parametrize("reader", ["", "z = ArgMax <axis = 1> (x)", "z = Cast <to = 7> (x)", "z = Shape (x)"])
def test_a_float32_layer_beside_float16_has_the_bias_of_a_float32_layer(reader: str) -> None:
    """Its integer kernel adds the bias at input scale · weight scale, here less than the normal numbers of float16."""
    text = f"""g (float[1,4,1,1] x) => (float[1,5] y{", z" * bool(reader)}) {{
        f = Flatten (x) g = Gemm <transB = 1> (f, w, c) h = Cast <to = 10> (g) y = Cast <to = 1> (h) {reader} }}"""
    model = text_model(text, w=0.01 * normal(5, 4), c=normal(5))
    result = quantized(onnx.shape_inference.infer_shapes(model), "U8S8_AAWS")
    assert result.report.departure is None
    assert result.report.sqnr["y"] > 35


@pytest.mark.parametrize("kind", ["11", "7", "10", "1"])
@pytest.mark.parametrize("tail", ["y = MatMul (f, w)", "a = MatMul (f, w) b = Sigmoid (a) y = MatMul (b, v)"])
def test_a_layer_reads_what_was_cast_and_cast_back(kind: str, tail: str) -> None:
    model = text_model(
        f"g (float[3,4] x) => (float[3,5] y) {{ d = Cast <to = {kind}> (x) f = Cast <to = 1> (d) {tail} }}",
        w=normal(4, 5),
        v=normal(5, 5),
    )
    result = quantized(model)
    assert result.report.fused["MatMul"][0] > 0
    assert result.report.sqnr["y"] > 30


@pytest.mark.parametrize("kind", ["uint16", "int16", "int8"])
@pytest.mark.parametrize("add", ["m, c", "c, m"])
@pytest.mark.parametrize("tail", ["y = MatMul (a, v)", "r = Relu (a) y = MatMul (r, v)"])
def test_a_float16_bias_behind_a_product_of_16_bits(kind: str, add: str, tail: str) -> None:
    """Which onnxruntime's CPU provider would turn into integers at a float16 scale: they were infinite."""
    if kind == "int8":
        needs_version("1.30", "float16 numbers that are rounded where they are quantized")
    text = f"g (float16[1,6,8] x) => (float16[1,6,8] y) {{ m = MatMul (x, w) a = Add ({add}) {tail} }}"
    arrays = {"w": 0.3 * normal(8, 8), "v": 0.3 * normal(8, 8, seed=1), "c": normal(8)}
    model = text_model(text, **{name: array.astype(np.float16) for name, array in arrays.items()})
    result = quantized(model, activation_type=kind)
    assert result.report.departure is None
    assert result.report.sqnr["y"] > 35


@pytest.mark.parametrize(
    "nodes",
    [
        "s = SequenceConstruct (a, a) y = SequenceAt (s, i)",
        "s = SequenceConstruct (a, x) y = ConcatFromSequence <axis = 1> (s)",
        "s = SplitToSequence <axis = 1> (a) y = ConcatFromSequence <axis = 1> (s)",
        "e = SequenceEmpty () s = SequenceInsert (e, a) y = SequenceAt (s, i)",
    ],
)
def test_sequences_are_no_tensors_to_quantize(nodes: str) -> None:
    model = text_model(f"g (float[1,3,8] x) => (float[A,B,C] y) {{ a = MatMul (x, w) {nodes} }}", w=normal(8, 8), i=0)
    quantized(model)
    simulation = QuantizationSimModel(model, threads=1)
    simulation.compute_encodings([{"x": normal(1, 3, 8, seed=i)} for i in range(4)])
    onnx.checker.check_model(simulation.to_onnx_qdq(), full_check=True)


@pytest.mark.parametrize("layer", ["Conv (x, w, b)", "ConvTranspose (x, w, b)", "Conv <group = 2> (x, d, b)"])
@pytest.mark.parametrize("bias", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("kinds", [("uint16", "int16"), ("int16", "int8"), ("uint8", "int8")])
def test_a_float_bias_stays_float_where_its_codes_would_be_too_large(
    layer: str, bias: float, kinds: tuple[str, str]
) -> None:
    """onnxruntime's CPU provider makes int32 of it, at input scale · weight scale."""
    model = text_model(
        f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ a = {layer} r = Relu (a) y = Conv (r, v) }}",
        w=0.1 * normal(2, 2, 1, 1),
        d=0.1 * normal(2, 1, 1, 1),
        v=normal(2, 2, 1, 1),
        b=bias * np.array([1, 2], np.float32),
    )
    options = {"QuantizeBias": False}
    result = quantized(model, activation_type=kinds[0], weight_type=kinds[1], extra_options=options)
    assert result.report.departure is None
    assert result.report.sqnr["y"] > 30


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1,), (), (3, 1), (3, 8)])
@pytest.mark.parametrize("preset", ["S8S8_AAWS_ADAQUANT", "S16S8_ASWS_ADAROUND", "INT8_PROTECTED"])
def test_a_weight_on_the_left_has_no_bias_behind_it(shape: tuple[int, ...], preset: str) -> None:
    """What is added is by columns of the activation, not by rows of the weight."""
    model = text_model(
        "g (float[4,8] x) => (float[3,8] y) { a = MatMul (w, x) y = Add (a, b) }", w=normal(3, 4), b=normal(*shape)
    )
    assert quantized(model, preset).report.sqnr["y"] > 30


@pytest.mark.parametrize(
    "dead", ["c = Neg (a)", "c = Clip (b, l, h)", "c = MatMul (x, w) d = Relu (c)", "c = Add (b, k)"]
)
@pytest.mark.parametrize("optimize", [False, True])
def test_what_no_output_needs_has_no_quantizers(dead: str, optimize: bool) -> None:
    text = f"g (float[1,4] x) => (float[1,4] y) {{ a = MatMul (x, w) b = Relu (a) y = MatMul (b, w) {dead} }}"
    model = text_model(text, w=normal(4, 4), l=np.float32(0), h=np.float32(6), k=normal(4))
    assert not {"c", "d", "l", "h", "k"} & quantized(model, optimize_model=optimize).plan.sites.keys()
    simulation = QuantizationSimModel(model, threads=1)
    simulation.compute_encodings([{"x": normal(1, 4, seed=i)} for i in range(3)])
    assert not {"c", "d", "l", "h", "k"} & simulation.qc_quantize_op_dict.keys()


@pytest.mark.parametrize(("opset", "groups", "size"), [(18, 2, 2), (20, 1, 1), (18, 4, 4), (21, 2, 4)])
def test_a_group_normalization_has_a_scale_per_group_or_per_channel(opset: int, groups: int, size: int) -> None:
    """Per group up to operator set 20; 16 bits need 21, where it is per channel."""
    text = f"""g (float[1,4,6] x) => (float[1,4,6] y) {{
        a = Conv (x, w) n = GroupNormalization <num_groups = {groups}> (a, s, b) y = Conv (n, w) }}"""
    arrays = {"w": normal(4, 4, 1), "s": normal(size), "b": normal(size, seed=1)}
    result = quantized(text_model(text, opset, ir_version=10, **arrays), activation_type="uint16")
    assert result.report.sqnr["y"] > 25


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_a_float_bias_of_a_simulation_stays_what_it_is(weight: float) -> None:
    """Beside outputs of 16 bits onnxruntime makes int32 of it, in which it may not fit."""
    text = "g (float[1,1,3,3] x) => (float[1,2,1,1] y) { y = Conv (x, w, b) }"
    model = text_model(text, w=weight * normal(2, 1, 3, 3), b=np.array([-1.26, 0.33], np.float32))
    feeds = [{"x": normal(1, 1, 3, 3, seed=i)} for i in range(6)]
    simulation = QuantizationSimModel(model, default_output_bw=16)
    simulation.compute_encodings(feeds)
    options = ort.SessionOptions()
    run = ort.InferenceSession(simulation.to_onnx_qdq().SerializeToString(), options).run
    float_run = ort.InferenceSession(model.SerializeToString(), options).run
    for feed in feeds:
        np.testing.assert_allclose(run(None, feed)[0], float_run(None, feed)[0], atol=0.03 * max(weight, 0.1))
