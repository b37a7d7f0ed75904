"""One tensor in two types: the Identity that preparing puts in, and the two quantizers around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from quantized_models import feeds
from text_models import prepared, text_model

from quark_onnx import ConfigError, ModelQuantizer, QuantizationConfig, Result
from quark_onnx.core.plan import Plan
from quark_onnx.graph import io
from quark_onnx.numerics.quantizer import dequantize, quantize
from quark_onnx.stages.prepare import prepare

NET = """g (float[8,4] x) => (float[8,5] y, float[8,6] z, float[8,4] p) {
    [first] a = MatMul (x, u) [act] h = LeakyRelu (a) [wide] y = MatMul (h, w) [narrow] z = MatMul (h, v)
    [other] p = MatMul (a, u) }"""
WEIGHTS = {
    "u": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32),
    "w": np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32),
    "v": np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32),
}
WIDE = {"quant_type": "uint16", "convert": {"quant_type": "uint8"}}


def net(text: str = NET) -> onnx.ModelProto:
    return text_model(text, **WEIGHTS)


def converted(override: dict[str, Any], text: str = NET, **fields: Any) -> Result:
    options = {"TensorQuantOverrides": {"h": override}, "Protect": False}
    config = QuantizationConfig(include_cle=False, extra_options=options, **fields)
    return ModelQuantizer(config).quantize_model(net(text), None, feeds(io.load(net(text))))


def identities(model: Any) -> list[Any]:
    return [node for node in model.graph if node.op_type == "Identity"]


def outputs(model: onnx.ModelProto, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Tensors inside a model, computed as it is written."""
    seen = onnx.ModelProto.FromString(model.SerializeToString())
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(ort.InferenceSession(seen.SerializeToString(), options).run(None, feed))


def test_both_types_compute_what_they_should() -> None:
    result = converted(WIDE | {"convert": {"quant_type": "uint8", "recv_nodes": ["narrow"]}})
    sites, plan = result.plan.sites, result.plan
    assert (sites["h"].format.dtype, sites["h_converted"].format.dtype) == ("uint16", "uint8")
    feed = feeds(io.load(net()))[0]
    (h,) = outputs(net(), ["h"], feed)
    (rounded,) = outputs(result.model, ["a_dequantized"], feed)
    wide, narrow, y, z = outputs(result.model, ["h_dequantized", "h_converted_dequantized", "y", "z"], feed)
    q, format = plan.qparams["h"], sites["h"].format
    leaky = np.where(rounded < 0, np.float32(0.01) * rounded, rounded)
    np.testing.assert_array_equal(wide, dequantize(quantize(leaky, q, format), q, format))
    q, format = plan.qparams["h_converted"], sites["h_converted"].format
    np.testing.assert_array_equal(narrow, dequantize(quantize(wide, q, format), q, format))
    assert np.abs(narrow - h).max() > 16 * np.abs(wide - leaky).max()
    options = ort.SessionOptions()
    session = ort.InferenceSession(result.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    steps = {"y": steps_of(plan, "h", "w"), "z": steps_of(plan, "h_converted", "v")}
    for name, mine, optimized in zip(("y", "z"), (y, z), session.run(["y", "z"], feed), strict=True):
        assert np.abs(mine - optimized).max() <= steps[name]


def steps_of(plan: Plan, tensor: str, weight: str) -> float:
    """What an output, float itself, moves when a and what is read of it are a step apart: LeakyRelu adds nothing."""
    step = sum(float(plan.qparams[name].scale) for name in ("a", tensor))
    return 1.01 * step * float(np.abs(WEIGHTS[weight]).sum(0).max())


def test_the_reader_that_is_not_named_keeps_the_first_type() -> None:
    result = converted(WIDE | {"convert": {"quant_type": "uint8", "recv_nodes": ["narrow"]}})
    reads = {node.name: node.input[0] for node in result.model.graph.node}
    assert (reads["wide"], reads["narrow"]) == ("h_dequantized", "h_converted_dequantized")
    assert result.plan.nodes["narrow"] == ("h_converted", "v")
    assert result.plan.nodes["wide"] == ("h", "w")


def test_without_names_all_readers_convert() -> None:
    result = converted(WIDE)
    reads = {node.name: node.input[0] for node in result.model.graph.node}
    assert reads["wide"] == reads["narrow"] == "h_converted_dequantized"


def test_the_second_quantizer_takes_a_range() -> None:
    convert = {"quant_type": "uint8", "rmin": -0.5, "rmax": 1.5}
    result = converted({"convert": convert, "quant_type": "int16"})
    assert result.plan.sites["h_converted"].range == (-0.5, 1.5)
    assert result.plan.sites["h"].range is None


def test_onnxruntime_drops_the_identity() -> None:
    rows = {row.op_type: row for row in converted(WIDE).report.ledger}
    assert rows["Identity"].status == "absorbed"


def test_the_model_input_can_be_converted() -> None:
    options = {"TensorQuantOverrides": {"x": WIDE}}
    model = text_model("g (float[8,4] x) => (float[8,5] y) { [n] y = MatMul (x, w) }", **WEIGHTS)
    config = QuantizationConfig(include_cle=False, extra_options=options)
    result = ModelQuantizer(config).quantize_model(model, None, feeds(io.load(model)))
    assert [site.format.dtype for site in result.plan.sites.values()][:2] == ["uint16", "uint8"]


def test_nothing_is_put_in_unasked() -> None:
    assert identities(prepared(net()).model) == []
    options = {"TensorQuantOverrides": {"h": {"quant_type": "uint16"}}}
    config = QuantizationConfig(include_cle=False, extra_options=options)
    assert "h_converted" not in ModelQuantizer(config).quantize_model(net(), None, feeds(io.load(net()))).plan.sites


def test_an_identity_that_names_an_output_stays_float() -> None:
    text = "g (float[8,4] x) => (float[8,5] y, float[8,4] z) { [n] y = MatMul (x, w) [i] z = Identity (x) }"
    model = text_model(text, w=WEIGHTS["w"])
    plan = ModelQuantizer(QuantizationConfig()).quantize_model(model, None, feeds(io.load(model))).plan
    assert plan.notes["i"] == "gives a graph output its name"
    assert "z" not in plan.sites


def test_an_output_keeps_its_first_type() -> None:
    text = NET.replace("=> (", "=> (float[8,4] h, ")
    result = converted(WIDE, text)
    producers = {node.output[0]: node.op_type for node in result.model.graph.node}
    assert producers["h"] == "DequantizeLinear"
    assert result.plan.sites["h"].format.dtype == "uint16"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"hh": ()}, r"\['hh'\]: the prepared model has no such tensor"),
        ({"w": ()}, r"\['w'\]: 'convert' is for activations, and this is a constant"),
        ({"y": ()}, r"\['y'\]: no node reads it"),
        ({"h": ("act",)}, "'act' does not read it"),
        ({"h": ("narow",)}, "did you mean 'narrow'"),
    ],
)
def test_bad_conversions(wanted: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(io.load(net()), opset=21, conversions=wanted)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_as_many_bits_are_no_conversion(kind: str) -> None:
    with pytest.raises(ConfigError, match="'convert' leads from 8 bits to as many"):
        converted({"convert": {"quant_type": kind}})
