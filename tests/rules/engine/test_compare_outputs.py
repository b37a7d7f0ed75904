"""Outputs of every kind, float model against quantized one: measured, judged, and told of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from text_models import normal

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.engine.compare import compare, compare_each
from quark_onnx.engine.result_wording import BLOCK, output_warnings, size_warning
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.report.build import Measure, report_of
from quark_onnx.result import Result

W = normal(8, 6)
CORNERS = np.random.default_rng(0).random((1, 6, 2), np.float32)
BOXES = np.concatenate([CORNERS, CORNERS + np.float32(0.2)], -1)
NAMES = 'keys_int64s = [0, 1, 2, 3, 4, 5], values_strings = ["a", "b", "c", "d", "e", "f"]'
LABELS = "int64[N, 1] k", "k = ArgMax <axis = 1> (l)"
KINDS: Mapping[str, tuple[str, str]] = {
    "ArgMax": LABELS,
    "TopK": ("int64[N, 3] k", "v, k = TopK <axis = 1> (l, three)"),
    "bool": ("bool[N, 6] k", "k = Greater (l, zero)"),
    "uint8": ("uint8[N, 6] k", "m = Mul (l, l) k = Cast <to = 2> (m)"),
    "text": ("string[N, 1] k", f"a = ArgMax <axis = 1> (l) k = ai.onnx.ml.LabelEncoder <{NAMES}> (a)"),
    "sequence": ("seq(bool[N, 3]) k", "b = Greater (l, zero) k = SplitToSequence <axis = 1> (b, split)"),
    "NMS": ("int64[M, 3] k", "s = Sigmoid (l) c = Unsqueeze (s, z) k = NonMaxSuppression (boxes, c, ten, half, half)"),
}
CONSTANTS = {
    "three": np.array([3]), "zero": np.float32(0), "split": np.array(3), "z": np.array([0]), "boxes": BOXES,
    "ten": np.array([10]), "half": np.array([0.5], np.float32), "w": W,
}  # fmt: skip


def model(output: str, nodes: str, **constants: np.ndarray) -> onnx.ModelProto:
    """`l` = x·w, and what nodes make of it."""
    text = f"g (float[N, 8] x) => ({output}) {{ l = MatMul (x, w) {nodes} }}"
    proto = parse_model(f'<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> {text}')
    for name, array in (CONSTANTS | constants).items():
        if name in {value for node in proto.graph.node for value in node.input}:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def samples(count: int = 16, rows: int = 1) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(rows, 8, seed=seed)} for seed in range(count)]


def coarse(**fields: Any) -> QuantizationConfig:
    """Weights of 4 bits, and nothing done against the harm."""
    options = {"Protect": False, **fields.pop("extra_options", {})}
    return replace(get_default_config("S8S8_AAWS"), weight_type="int4", extra_options=options, **fields)


def quantized(proto: onnx.ModelProto, config: QuantizationConfig | None = None, rows: int = 1) -> Result:
    return ModelQuantizer(config or coarse()).quantize_model(proto, None, samples(rows=rows))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_not_float_are_measured(kind: str) -> None:
    proto = model(*KINDS[kind])
    result = quantized(proto)
    one = result.report.outputs["k"]
    assert result.report.sqnr == {}
    assert one.equal is not None and one.values > 0
    if kind != "NMS":  # whose shapes differ
        first, second = (Runner(io.load(m), ["k"]) for m in (proto, result.model))
        pairs = [(np.ravel(first(feed)[0]), np.ravel(second(feed)[0])) for feed in samples()]
        assert one.equal == pytest.approx(np.mean([np.mean(x == y) for x, y in pairs]))
    exact = compare(io.load(proto), io.load(proto), samples(), optimized=True).outputs["k"]
    assert exact.equal == 1 and exact.values > 0 and exact.shapes is None
    report = report_of(result, coarse(), proto, "m", measure=Measure(latency=False, memory=False, feeds=2))
    assert report.worst_sqnr == one.db and report.layers.judged == "k"


def test_another_number_of_boxes_is_judged_and_told() -> None:
    result = quantized(model(*KINDS["NMS"]))
    one = result.report.outputs["k"]
    assert one.shapes is not None and one.db is not None and one.db < 20
    assert any("output 'k' has another shape in the quantized model" in text for text in result.report.warnings)


def test_a_sequence_of_floats_is_a_signal() -> None:
    proto = model("seq(float[N, 3]) k", "k = SplitToSequence <axis = 1> (l, split)")
    whole = quantized(model("float[N, 6] l", ""))
    assert quantized(proto).report.sqnr["k"] == pytest.approx(whole.report.sqnr["l"], abs=1e-6)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ("n = Sqrt (l) k = Add (n, one)", "is NaN or infinite in the float model"),
        ("k = NonZero (none)", "holds nothing that could be measured"),
        ("n = Exp (l) k = Add (n, one)", ""),
    ],
)
def test_outputs_that_cannot_be_measured_are_told(nodes: str, text: str) -> None:
    kind = "int64[2, M] k" if "NonZero" in nodes else "float[N, 6] k"
    proto = model(f"{kind}, float[N, 6] l", nodes, one=np.float32(1), none=np.zeros((2, 2), np.float32))
    told = [warning for warning in quantized(proto).report.warnings if "output 'k'" in warning]
    assert any(text in warning for warning in told) if text else told == []


def test_values_that_only_the_quantized_model_loses_are_told() -> None:
    first, other = (io.load(model("float[N, 6] k", f"k = {op} (l)")) for op in ("Abs", "Sqrt"))
    found = compare(first, other, samples(), optimized=True)
    (warning,) = output_warnings(found.outputs)
    assert "output 'k' is NaN or infinite in the quantized model only" in warning
    assert found.worst == -np.inf


DETECTOR = "b = Mul (l, big) s = Sigmoid (l) k = Concat <axis = 1> (b, s)"


def detector() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Boxes up to some hundreds and scores up to 1 in one tensor (1, 6 + 6, 400), which a layer reads, too."""
    outputs = "float[1, 12, 400] k, float[1, 6, 400] z"
    text = f"g (float[1, 8, 400] x) => ({outputs}) {{ l = Conv (x, w) {DETECTOR} z = Conv (k, v) }}"
    proto = parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    weights = {"w": np.ascontiguousarray(W.T[:, :, None]), "v": normal(6, 12, 1)}
    for name, array in {**weights, "big": np.float32(100)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto, [{"x": normal(1, 8, 400, seed=seed)} for seed in range(4)]


def test_scores_that_boxes_hide_are_shown_and_told() -> None:
    proto, data = detector()
    config = replace(get_default_config("S8S8_AAWS"), extra_options={"Protect": False})
    result = ModelQuantizer(config).quantize_model(proto, None, data)
    one = result.report.outputs["k"]
    assert one.sqnr is not None and one.sqnr > 25
    assert one.worst is not None and one.worst.axis == 1 and one.worst.index >= 6
    assert one.worst.sqnr < 10
    assert any(f"only {one.worst.sqnr:.1f} dB (axis 1, index {one.worst.index})" in w for w in result.report.warnings)
    offered = {target: "16 bits" in output_warnings({"k": one}, target)[0] for target in ("cpu", "qnn", "openvino")}
    assert offered == {"cpu": True, "qnn": True, "openvino": False}
    what = Measure(latency=False, memory=False)
    report = report_of(result, config, proto, "m", measure=what)
    assert report.worst_sqnr == one.worst.sqnr
    assert any(advice.rule == "poor_output" and "axis 1" in advice.text for advice in report.advice)
    assert report.layers.part is not None and report.layers.part.index >= 6
    assert report.layers.worst(1)[0].tensor == "k", "the rounding of what holds both, not the layer in front"


# who judges by it


@pytest.mark.parametrize("output", [LABELS, KINDS["bool"]])
def test_selective_update_keeps_layers_of_models_that_answer_with_labels(output: tuple[str, str]) -> None:
    tuning = AdaRound(selective_update=True, num_iterations=100)
    config = coarse(include_fast_ft=True, extra_options={"FastFinetune": tuning})
    proto = model(*output, w=normal(8, 6, seed=10))  # of other weights it makes labels worse, and is not kept
    found, plain = (quantized(proto, c, rows=64).report for c in (config, coarse()))
    assert any(record.accepted for record in found.tuned)
    assert (found.outputs["k"].equal or 0) >= (plain.outputs["k"].equal or 0)


def test_nothing_to_judge_by_is_said() -> None:
    nothing = model("int64[2, M] k", "a = Abs (l) b = Neg (a) c = Relu (b) k = NonZero (c)")
    tuning = {"FastFinetune": AdaRound(selective_update=True, num_iterations=10)}
    with pytest.raises(ConfigError, match=r"SelectiveUpdate judges layers by the outputs.*give an evaluator"):
        quantized(nothing, coarse(include_fast_ft=True, extra_options=tuning))
    mixed = replace(coarse(), activation_type="int16", weight_type="int16", include_auto_mp=True)
    with pytest.raises(ConfigError, match=r"include_auto_mp judges outputs.*holds no value"):
        quantized(nothing, mixed)


@pytest.mark.parametrize("metric", ["sqnr", "psnr", "cosine", "l2"])
def test_mixed_precision_judges_labels(metric: str) -> None:
    """By any metric, equal labels are the best, and none of them equal is the worst."""
    config = replace(coarse(), activation_type="int16", weight_type="int16", include_auto_mp=True)
    types = {"activation_type": "int4", "weight_type": "int4"}
    options = {"MetricDefault": metric, "MetricThreshold": None, "TargetLayerConfig": types}
    config = replace(config, extra_options={"AutoMixprecision": options})
    (record,) = quantized(model(*KINDS["bool"]), config).report.mixed
    narrow = quantized(model(*KINDS["bool"]), coarse(activation_type="int4")).report.outputs["k"]
    assert narrow.equal is not None and 0 < narrow.equal < 1
    differ = (1 - narrow.equal) * narrow.values
    wanted = {"sqnr": narrow.db, "psnr": narrow.db, "cosine": narrow.equal**0.5}
    if metric == "l2":
        assert 0 < record.score <= differ**0.5
    else:
        assert record.score == pytest.approx(wanted[metric])


# size


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [(BLOCK, BLOCK + 1, True), (1, BLOCK, False), (BLOCK + 1, BLOCK, False), (10 * BLOCK, 12 * BLOCK, True)],
)
def test_a_larger_result_is_told(before: int, after: int, told: bool) -> None:
    assert bool(size_warning(before, after)) == told


def test_a_model_of_many_small_layers_gets_larger(tmp_path: Any) -> None:
    nodes = " ".join(f"r{i} = Relu (x{i}) x{i + 1} = Gemm (r{i}, v)" for i in range(24))
    text = f"g (float[N, 2] x0) => (float[N, 2] x24) {{ {nodes} }}"
    proto = parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(2, 2), "v"))
    onnx.save(proto, tmp_path / "m.onnx")
    data = [{"x0": normal(1, 2, seed=seed)} for seed in range(3)]
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    report = quantizer.quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", data).report
    sizes = [(tmp_path / name).stat().st_size for name in ("m.onnx", "q.onnx")]
    assert report.stored == {"float": sizes[0], "quantized": sizes[1]}
    assert any(f"{sizes[1]:,} bytes for {sizes[0]:,}" in warning for warning in report.warnings)
    assert quantizer.quantize_model(proto, None, data).report.stored == report.stored


def test_each_feed_alone_is_what_it_is_by_itself() -> None:
    float_model = model("float[N, 6] y", "y = Relu (l)")
    result = ModelQuantizer(coarse()).quantize_model(float_model, None, samples())
    both, feeds = (io.load(float_model), io.load(result.model)), samples(5, rows=64)
    whole, alone = compare_each(*both, feeds)
    assert whole == compare(*both, feeds, optimized=False)
    assert alone == [compare(*both, [feed], optimized=False) for feed in feeds]
    assert (whole.samples, [one.samples for one in alone]) == (5, [1] * 5)
