"""float16 models: widened for the stages, narrowed again, and quantized with float16 scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from newer_onnxruntime import needs_version, older_than
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig
from quark_onnx.clock import Clock, unseen
from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.core.plan import Plan
from quark_onnx.decided import Decided
from quark_onnx.engine.runner import Runner, rounds_float16
from quark_onnx.graph import Model, io
from quark_onnx.graph.from_float16 import to_float32
from quark_onnx.graph.to_float16 import to_float16
from quark_onnx.job import CUT_OFF
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import finish
from quark_onnx.result import Result

H = np.float16
TYPES = {1: "float", 10: "float16", 7: "int64", 9: "bool"}
ROUNDS = "1.30"
"""The first onnxruntime whose QuantizeLinear rounds float16 numbers."""

CONV = "g (float16[1,3,8,8] x) => (float16[1,4,8,8] y) { c = Conv <pads = [1,1,1,1]> (x, w, b) y = Relu (c) }"
BLOCK = """g (float16[1,3,8,8] x) => (float16[1,4,8,8] y) {
    c = Conv <pads = [1,1,1,1]> (x, w, b) r = Relu (c) e = Conv <pads = [1,1,1,1]> (r, v, b) y = Add (e, r) }"""


def block(scale: float = 0.3) -> onnx.ModelProto:
    """Two convolutions and a residual sum."""
    small = {"w": scale * normal(4, 3, 3, 3), "v": scale * normal(4, 4, 3, 3), "b": normal(4)}
    return text_model(BLOCK, **{name: array.astype(H) for name, array in small.items()})


def samples(count: int = 4, dtype: Any = H) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(1, 3, 8, 8, seed=i).astype(H).astype(dtype)} for i in range(count)]


def quantize(proto: onnx.ModelProto, data: Any = None, **fields: Any) -> Result:
    result = ModelQuantizer(QuantizationConfig(**fields)).quantize_model(proto, None, data or samples())
    onnx.checker.check_model(result.model, full_check=True)
    return result


def interface(proto: onnx.ModelProto | Model) -> dict[str, str]:
    graph = (proto if isinstance(proto, onnx.ModelProto) else io.to_proto(proto)).graph
    return {v.name: TYPES[v.type.tensor_type.elem_type] for v in (*graph.input, *graph.output)}


def arrays(proto: onnx.ModelProto | Model) -> dict[str, np.ndarray]:
    graph = (proto if isinstance(proto, onnx.ModelProto) else io.to_proto(proto)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


def outputs(proto: onnx.ModelProto | Model, feed: Mapping[str, np.ndarray], *, optimized: bool) -> list[np.ndarray]:
    model = io.load(proto) if isinstance(proto, onnx.ModelProto) else proto
    return Runner(model, optimized=optimized, threads=1)(dict(feed))


# to float32 --------------------------------------------------------------------------------------


def test_widened_is_equal_and_float32_throughout() -> None:
    proto = block()
    before = proto.SerializeToString(deterministic=True)
    wide = to_float32(io.load(proto))
    assert wide is not None
    assert proto.SerializeToString(deterministic=True) == before
    assert interface(wide.model) == {"x": "float", "y": "float"}
    assert wide.interface == {"x", "y"}
    assert wide.wide == frozenset()
    for name, array in arrays(wide.model).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays(proto)[name])
    feed = samples(1)[0]
    (want,), (got,) = (
        outputs(proto, feed, optimized=False),
        outputs(wide.model, samples(1, np.float32)[0], optimized=False),
    )
    np.testing.assert_allclose(got, want.astype(np.float32), atol=2e-2)


def test_a_float32_model_is_left_alone() -> None:
    assert to_float32(io.load(text_model("g (float[2] x) => (float[2] y) { y = Relu (x) }"))) is None
    doubles = "g (double[2] x) => (float[2] y) { r = Relu (x) y = Cast <to = 1> (r) }"
    assert to_float32(io.load(text_model(doubles))) is None


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ("h = Cast <to = 10> (x) e = Exp (h) y = Cast <to = 1> (e)", ["Exp"]),
        ("h = Cast <to = 10> (x) f = Cast <to = 1> (h) y = Exp (f)", ["Exp"]),
        ("i = Cast <to = 7> (x) h = Cast <to = 10> (i) y = Cast <to = 1> (h)", ["Cast", "Cast"]),  # to whole numbers
        ("h = Cast <to = 10> (x) y = Cast <to = 1> (h)", ["Cast"]),  # an output needs a name of its own
        ("d = Cast <to = 11> (x) h = Cast <to = 10> (d) y = Cast <to = 1> (h)", ["Cast", "Cast"]),
    ],
)
def test_casts_between_the_two_types_go(nodes: str, left: list[str]) -> None:
    wide = to_float32(io.load(text_model(f"g (float[4] x) => (float[4] y) {{ {nodes} }}")))
    assert wide is not None
    assert ops(wide.model) == left
    assert wide.interface == frozenset()
    onnx.checker.check_model(io.to_proto(wide.model), full_check=True)


def test_nodes_that_computed_in_float32_are_known() -> None:
    text = """g (float16[2,4] x) => (float16[2,4] y) {
        a = MatMul (x, w) f = Cast <to = 1> (a) s = Softmax (f) h = Cast <to = 10> (s) y = MatMul (h, w) }"""
    wide = to_float32(io.load(text_model(text, w=normal(4, 4, dtype=H))))
    assert wide is not None
    assert wide.wide == {"Softmax_s"}
    again = to_float16(wide.model, keep=wide.wide, interface=wide.interface)
    assert ops(again) == ["MatMul", "Cast", "Softmax", "Cast", "MatMul"]
    forgotten = to_float16(wide.model, interface=wide.interface)
    assert ops(forgotten) == ["MatMul", "Softmax", "MatMul"]


def test_types_in_attributes_and_bodies() -> None:
    text = """g (bool c, float16[2] x, int64[1] n) => (float16[2] y, float16[2] z) {
        k = ConstantOfShape <value = float16[1] {2}> (n) r = Cast <to = 10> (m)
        y = If (c) <
            then_branch = t () => (float16[2] o) { a = Constant <value = float16[2] {1, 2}> () o = Add (a, x) },
            else_branch = e () => (float16[2] p) { i = Cast <to = 7> (x) p = Cast <to = 10> (i) } >
        s = ReduceSum <keepdims = 0> (r, axes) q = Mul (s, x) z = Mul (q, k) }"""
    proto = text_model(text, m=np.ones((2, 2), np.int64), axes=np.array([0], np.int64))
    onnx.checker.check_model(proto, full_check=True)
    wide = to_float32(io.load(proto))
    assert wide is not None
    onnx.checker.check_model(io.to_proto(wide.model), full_check=True)
    assert "FLOAT16" not in str(io.to_proto(wide.model))
    narrow = to_float16(wide.model, interface=wide.interface)
    onnx.checker.check_model(io.to_proto(narrow), full_check=True)
    assert interface(narrow) == interface(proto)
    for chosen in (True, False):
        feed = {"c": np.array(chosen), "x": np.array([1.5, -2.5], H), "n": np.array([1])}
        wider = feed | {"x": feed["x"].astype(np.float32)}
        for twin, fed in ((wide.model, wider), (narrow, feed)):
            for want, got in zip(
                outputs(proto, feed, optimized=False), outputs(twin, fed, optimized=False), strict=True
            ):
                np.testing.assert_array_equal(got.astype(H), want)


# and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [(), ("x",), ("y",), ("x", "y")])
def test_the_interface_is_what_is_asked_for(half: tuple[str, ...]) -> None:
    proto = text_model("g (float[2,4] x) => (float[2,4] y) { y = MatMul (x, w) }", w=normal(4, 4))
    narrow = to_float16(io.load(proto), interface=half)
    assert interface(narrow) == {name: "float16" if name in half else "float" for name in "xy"}
    assert ops(narrow) == ["Cast"] * ("x" not in half) + ["MatMul"] + ["Cast"] * ("y" not in half)
    assert arrays(narrow)["w"].dtype == H
    onnx.checker.check_model(io.to_proto(narrow), full_check=True)


def test_a_sequence_cannot_go_back() -> None:
    text = "g (float16[2] x) => (seq(float16[2]) y) { e = Exp (x) y = SequenceConstruct (e, e) }"
    with pytest.raises(ModelError, match=r"'y' is a sequence.*convert_fp16_to_fp32"):
        quantize(text_model(text), [{"x": np.zeros(2, H)}])
    result = quantize(text_model(text), [{"x": np.zeros(2, H)}], convert_fp16_to_fp32=True)
    assert result.model.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type == 1


QDQ = """g (float16[2,4] x) => (float16[2,4] y) {
    q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = MatMul (d, w) }"""


@pytest.mark.parametrize(("scale", "kinds"), [(0.125, {"float16"}), (0.1, {"float32"}), (2.0**-30, {"float32"})])
def test_a_scale_is_never_rounded(scale: float, kinds: set[str]) -> None:
    text = QDQ.replace("float16", "float")
    proto = text_model(text, opset=19, ir_version=9, s=np.float32(scale), z=np.int8(3), w=normal(4, 4))
    narrow = to_float16(io.load(proto), interface=("x", "y"))
    onnx.checker.check_model(io.to_proto(narrow), full_check=True)
    scales = [array for name, array in arrays(narrow).items() if name.startswith("s")]
    assert {str(array.dtype) for array in scales} == kinds
    assert {float(array) for array in scales} == {float(np.float32(scale))}


def test_quantizers_between_float32_nodes_stay_float32() -> None:
    text = (
        "g (float[2,4] x) => (float[2,4] y) { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Exp (d) }"
    )
    proto = text_model(text, opset=19, ir_version=9, s=np.float32(0.125), z=np.int8(3))
    proto.graph.node[2].name = "exp"
    assert "Cast" not in ops(to_float16(io.load(proto), keep=("exp",)))
    assert ops(to_float16(io.load(proto))).count("Cast") == 1  # for the output


# quantized ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_float16_model_has_float16_scales(per_channel: bool) -> None:
    result = quantize(block(), per_channel=per_channel)
    assert interface(result.model) == {"x": "float16", "y": "float16"}
    assert next(entry.version for entry in result.model.opset_import if entry.domain == "") >= 19
    stored = arrays(result.model)
    scales = {name: array for name, array in stored.items() if name.endswith("_scale")}
    assert {array.dtype for array in scales.values()} == {np.dtype(H)}
    for tensor, site in result.plan.sites.items():
        q = result.plan.qparams_of(tensor)
        np.testing.assert_array_equal(scales[f"{site.group}_scale"].astype(np.float32), q.scale)
    assert {stored[f"{name}_quantized"].dtype for name in ("w", "v")} == {np.dtype(np.int8)}
    assert not [name for name, array in stored.items() if array.dtype == np.float32]
    assert result.report.sqnr["y"] > 25


def test_raw_and_optimized_agree_also_where_input_times_weight_scale_is_no_float16_number() -> None:
    """With a float16 bias onnxruntime makes int32 codes of it at a scale of 0 or of a few bits."""
    result = quantize(block(scale=0.003), per_channel=True)
    assert arrays(result.model)["b_quantized"].dtype == np.int32
    for feed in samples():
        (raw,), (run,) = (outputs(result.model, feed, optimized=optimized) for optimized in (False, True))
        np.testing.assert_allclose(run.astype(np.float32), raw.astype(np.float32), atol=2e-3)
    assert result.report.sqnr["y"] > 25


def test_a_concat_stays_float32() -> None:
    """onnxruntime makes an integer Concat whatever type its scales have, and then refuses float16 ones."""
    joined = """g (float16[1,3,8,8] x) => (float16[1,4,4,4] y) {
        a = Conv (x, w) b = Conv (x, v) j = Concat <axis = 1> (a, b) y = Conv (j, u) }"""
    weights = {"w": normal(4, 3, 3, 3), "v": normal(4, 3, 3, 3), "u": normal(4, 8, 3, 3)}
    model = text_model(joined, **{name: (0.3 * array).astype(H) for name, array in weights.items()})
    result = quantize(model)
    assert "Concat_j" in result.plan.nodes
    feed = samples()[0]
    (raw,), (run,) = (outputs(result.model, feed, optimized=optimized) for optimized in (False, True))
    np.testing.assert_allclose(run.astype(np.float32), raw.astype(np.float32), atol=0.05)
    assert result.report.sqnr["y"] > 25
    twin = open_job(model, QuantizationConfig(target="qnn", activation_type="uint8"))
    assert twin.widened is not None
    assert "Concat_j" not in twin.widened.wide


def test_other_targets_get_float16_biases() -> None:
    plan = open_job(block(), QuantizationConfig(target="qnn", activation_type="uint8")).sites
    assert not [site for site in plan.sites.values() if site.role == "bias"]
    assert not [tensor for tensors in plan.nodes.values() for tensor in tensors if tensor not in plan.sites]
    twin = open_job(block(), QuantizationConfig(target="qnn", activation_type="uint8", convert_fp16_to_fp32=True)).sites
    assert [site.format.bits for site in twin.sites.values() if site.role == "bias"] == [32, 32]


def test_converted_to_float32_nothing_is_float16() -> None:
    result = quantize(block(), convert_fp16_to_fp32=True)
    assert interface(result.model) == {"x": "float", "y": "float"}
    assert {str(array.dtype) for array in arrays(result.model).values()} == {"float32", "int8", "uint8", "int32"}
    assert result.report.fused["Conv"] == (2, 2)


def test_both_ways_have_the_same_codes_where_the_scale_is_the_same() -> None:
    """Powers of two are float16 numbers: the same plan, but for biases."""
    needs_version(ROUNDS, "float16 numbers that are rounded where they are quantized")
    power = {"extra_options": {"UsePowerOf2Scale": True}}
    half, full = (quantize(block(), convert_fp16_to_fp32=convert, **power) for convert in (False, True))
    for name in ("w", "v"):
        np.testing.assert_array_equal(arrays(half.model)[f"{name}_quantized"], arrays(full.model)[f"{name}_quantized"])
    (want,) = outputs(full.model, samples(1, np.float32)[0], optimized=False)
    (got,) = outputs(half.model, samples(1)[0], optimized=False)
    assert np.mean(np.abs(want - got.astype(np.float32)) > 1e-2) < 0.02  # a code apart now and then


def test_an_onnxruntime_that_cuts_float16_numbers_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds_float16() is not older_than(ROUNDS)
    for rounds in (False, True):
        monkeypatch.setattr("quark_onnx.job.rounds_float16", lambda rounds=rounds: rounds)
        assert (CUT_OFF in quantize(block()).report.warnings) is not rounds
        assert CUT_OFF not in quantize(block(), convert_fp16_to_fp32=True).report.warnings
        weights_alone = quantize(block(), extra_options={"WeightsOnly": True})
        assert CUT_OFF not in weights_alone.report.warnings


def test_float16_and_float32_samples_are_the_same_data() -> None:
    halves, floats = quantize(block(), samples()), quantize(block(), samples(dtype=np.float32))
    assert halves.model == floats.model
    assert set(halves.report.warnings) <= {CUT_OFF}
    with pytest.raises(DataError, match="infinite as float16"):
        quantize(block(), [{"x": np.full((1, 3, 8, 8), 1e5, np.float32)}])


def test_layers_that_were_float32_keep_float_scales() -> None:
    text = """g (float16[2,8] x) => (float16[2,8] y) {
        f = Cast <to = 1> (x) a = MatMul (f, w) r = Add (a, a) b = MatMul (r, w)
        h = Cast <to = 10> (b) c = MatMul (h, v) y = MatMul (c, v) }"""
    proto = text_model(text, w=normal(8, 8), v=normal(8, 8, dtype=H))
    plan = open_job(proto, QuantizationConfig()).sites
    kinds = {tensor: site.format.scale for tensor, site in plan.sites.items()}
    assert kinds["w"] == kinds["r"] == "float"
    assert kinds["v"] == kinds["b"] == kinds["c"] == "half"
    result = quantize(proto, [{"x": normal(2, 8, seed=i).astype(H)} for i in range(4)])
    assert interface(result.model) == {"x": "float16", "y": "float16"}
    assert result.report.sqnr["y"] > 25


def test_tuned_weights_have_float16_scales_too() -> None:
    """A weight that is huge and reads zeros: fine-tuning takes a smaller scale than the plan's."""
    proto = block()
    weight = arrays(proto)["w"].copy()
    weight[0, 2, 0, 0] = 7.3
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    data = [{"x": feed["x"] * np.array([1, 1, 0], H)[:, None, None]} for feed in samples(16)]
    options = {"FastFinetune": {"OptimAlgorithm": "adaround", "NumIterations": 20}}
    result = quantize(proto, data, include_fast_ft=True, extra_options=options)
    assert result.plan.codes["w"].scale < result.plan.qparams["w"].scale
    for coded in result.plan.codes.values():
        np.testing.assert_array_equal(coded.scale.astype(H).astype(np.float32), coded.scale)
    assert not [name for name, array in arrays(result.model).items() if array.dtype == np.float32]


def test_layer_figures_and_saved_plans(tmp_path: Any) -> None:
    result = quantize(block())
    assert set(result.layer_sqnr()) == {tensor for tensor, s in result.plan.sites.items() if s.role == "activation"}
    assert min(result.layer_sqnr().values()) > 20
    loaded = Plan.load(result.plan.save(tmp_path / "plan"))
    job = open_job(block(), QuantizationConfig()).rescaled(loaded.factors, loaded.shifts)
    assert finish(Decided(job, loaded), None, Clock(unseen)).model == result.model


def test_float32_interface_with_a_float16_inside() -> None:
    """What converters make with keep_io_types."""
    inside = to_float16(io.load(text_model(CONV.replace("float16", "float"), w=normal(4, 3, 3, 3), b=normal(4))))
    result = quantize(io.to_proto(inside), samples(dtype=np.float32))
    assert interface(result.model) == {"x": "float", "y": "float"}
    assert {array.dtype for name, array in arrays(result.model).items() if "w_scale" in name} == {np.dtype(H)}
    assert result.report.sqnr["y"] > 30


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-70000, 70000, width=32), min_size=4, max_size=4), st.booleans())
def test_float16_constants_stay_finite_and_nearest(numbers: list[float], both: bool) -> None:
    proto = text_model("g (float[4] x) => (float[4] y) { y = Add (x, w) }", w=np.array(numbers, np.float32))
    proto.graph.node[0].name = "add"
    stored = arrays(to_float16(io.load(proto), interface=("x", "y") if both else ()))["w"]
    want = np.clip(np.array(numbers, np.float32), -65504, 65504).astype(H)
    np.testing.assert_array_equal(stored, want)
    kept = arrays(to_float16(io.load(proto), keep=("add",)))["w"]
    np.testing.assert_array_equal(kept, np.array(numbers, np.float32))


def test_fields_of_the_configuration_change_nothing_for_float32_models() -> None:
    proto = text_model(CONV.replace("float16", "float"), w=normal(4, 3, 3, 3), b=normal(4))
    plain = QuantizationConfig()
    first, second = (
        ModelQuantizer(config).quantize_model(proto, None, samples(dtype=np.float32)).model
        for config in (plain, replace(plain, convert_fp16_to_fp32=True))
    )
    assert first == second
