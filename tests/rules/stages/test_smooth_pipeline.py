"""SmoothQuant from end to end: when it acts, what a plan keeps of it, and what the user is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import Config, ModelQuantizer, PlanError, QuantizationConfig
from quark_onnx.core.plan import Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.engine.compare import compare
from quark_onnx.engine.smoothing_wording import smoothed_lines
from quark_onnx.result import Result

UNEVEN = np.float32([1, 1, 60, 1, 0.1, 1, 1, 1])
WEIGHTS = {"g": UNEVEN, "b": normal(8), "w": normal(8, 32), "v": normal(32, 8), "c": UNEVEN, "d": normal(8, seed=1)}


def block() -> onnx.ModelProto:
    """A residual block behind a normalization that it reads as well, and another normalization that feeds a product."""
    text = """g (float[B,4,8] x) => (float[B,4,8] y) {
        n = LayerNormalization (x, g, b)
        h = MatMul (n, w)
        t = Relu (h)
        r = MatMul (t, v)
        s = Add (r, n)
        m = LayerNormalization (s, c, d)
        y = MatMul (m, u)
    }"""
    return text_model(text, **WEIGHTS, u=normal(8, 8, seed=2))


def samples(count: int = 12) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(2, 4, 8, seed=i)} for i in range(count)]


def quantized(count: int = 12, resume: Plan | None = None, **fields: Any) -> Result:
    known = QuantizationConfig.__dataclass_fields__
    options = {key: fields.pop(key) for key in list(fields) if key not in known}
    config = QuantizationConfig(**{"per_channel": True, **fields}, extra_options=options)
    return ModelQuantizer(Config(config)).quantize_model(block(), None, samples(count), resume=resume)


def on_others(result: Result) -> float:
    """dB of the output, on samples that the quantizer has not seen."""
    evidence = result.evidence
    return compare(evidence.model, evidence.quantized, samples(60)[20:], optimized=False).sqnr["y"]


@pytest.fixture(scope="module")
def auto() -> Result:
    return quantized()


def test_it_is_on_where_products_gain(auto: Result) -> None:
    plain = quantized(SmoothQuant=False)
    assert plain.report.smoothed == ()
    assert not (plain.plan.factors or plain.plan.smoothed)
    places = {record.tensor: record.into.split()[0] for record in auto.report.smoothed if record.alpha}
    assert places["n"] == "a"  # the residual reads it, too
    assert places["m"] == "LayerNormalization"
    assert set(auto.plan.smoothed) == {"n"}
    assert {"w", "c", "d", "u"} <= set(auto.plan.factors)
    assert on_others(auto) > on_others(plain) + 0.5  # dB
    assert auto.report.fused["MatMul"] == plain.report.fused["MatMul"] == (3, 3)


def test_the_mul_stays_float_and_the_residual_reads_what_it_did(auto: Result) -> None:
    (mul,) = [node for node in auto.model.graph.node if node.op_type == "Mul"]
    assert mul.input[0] == "n"
    assert mul.name not in auto.plan.nodes
    assert auto.plan.sites[mul.output[0]].role == "activation"


def test_a_plan_keeps_it(auto: Result, tmp_path: Path) -> None:
    loaded = Plan.load(auto.plan.save(tmp_path / "plan"))
    assert diff(auto.plan, loaded) == []
    again = quantized(resume=loaded)
    assert again.model.SerializeToString(deterministic=True) == auto.model.SerializeToString(deterministic=True)
    other = replace(loaded, smoothed={"n": loaded.smoothed["n"] * 2})
    assert [line for line in diff(loaded, other) if "smoothed" in line] != []


@pytest.mark.parametrize(
    ("name", "array"),
    [("n", np.ones(7, np.float32)), ("x", np.ones(8, np.float32)), ("nowhere", np.ones(8, np.float32))],
    ids=["too short", "no product reads it", "no tensor"],
)
def test_a_plan_of_another_model(auto: Result, name: str, array: np.ndarray) -> None:
    with pytest.raises(PlanError, match="rescales what this one does not have"):
        quantized(resume=replace(auto.plan, smoothed={name: array}))


def test_few_samples_leave_nothing_to_judge_by() -> None:
    few = quantized(count=3)
    assert {record.reason for record in few.report.smoothed} == {"too few samples to judge by: it takes 8 in two feeds"}
    assert few.plan.smoothed == {}
    asked = quantized(count=3, SmoothQuant=True)
    assert set(asked.plan.smoothed) >= {"n"}


@pytest.mark.parametrize("how", [{"SmoothAlpha": 0.25}, {"SmoothQuant": {"name": "smooth_quant", "alpha": 0.25}}])
def test_alpha_is_what_the_user_says(how: dict[str, Any]) -> None:
    assert {record.alpha for record in quantized(**how).report.smoothed} == {0.25}


def test_what_is_equalized_and_smoothed_has_both_factors() -> None:
    """A bias that equalization absorbs into is scaled as well; the outputs prove it, and a resumed run repeats it."""
    text = """g (float[B,8] x) => (float[B,8] y) {
        n = LayerNormalization (x, g, b)
        h = Gemm (n, w, e)
        t = Relu (h)
        y = Gemm (t, v, f)
    }"""
    model = text_model(text, **{key: WEIGHTS[key] for key in "gbwv"}, e=normal(32) + 9, f=normal(8))
    options = {"SmoothQuant": True, "HighBiasAbsorption": True}
    config = Config(QuantizationConfig(extra_options=options))
    feeds = [{"x": normal(4, 8, seed=i)} for i in range(12)]
    result = ModelQuantizer(config).quantize_model(model, None, feeds)
    equalized, smoothed = result.plan.factors["v"], result.plan.factors["w"]
    assert equalized.size == 32  # one for each channel between the layers
    assert smoothed.shape == (8, 32)
    assert set(result.plan.shifts) == {"e", "f"}
    resumed = ModelQuantizer(config).quantize_model(model, None, feeds, resume=result.plan)
    assert resumed.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "fields",
    [{"WeightsOnly": True}, {"use_dynamic_quant": True, "activation_type": "uint8"}],
    ids=["weights only", "run time"],
)
def test_without_ranges_there_is_nothing_to_smooth(fields: dict[str, Any]) -> None:
    assert quantized(**fields).report.smoothed == ()


def test_sixteen_bits_leave_codes_enough() -> None:
    reasons = {record.reason for record in quantized(activation_type="int16").report.smoothed}
    assert reasons == {"16 bits leave small channels codes enough"}
    assert quantized(activation_type="int16", SmoothQuant=True).plan.factors != {}


def test_targets_with_a_runtime_have_it_by_default() -> None:
    auto, plain = quantized(target="openvino"), quantized(target="openvino", SmoothQuant=False)
    assert {record.tensor for record in auto.report.smoothed if record.alpha} >= {"n", "m"}
    assert on_others(auto) > on_others(plain) + 0.5  # dB
    assert quantized(target="tensorrt", SmoothQuant="auto").report.smoothed == ()


def test_other_targets_are_asked_for_it() -> None:
    """In fixed point a Mul would be one more rounding: only what a normalization takes in is smoothed."""
    fields = {"target": "qnn", "activation_type": "uint8"}
    assert quantized(**fields).report.smoothed == ()
    asked = quantized(**fields, SmoothQuant=True)
    assert asked.plan.smoothed == {}
    assert {record.tensor for record in asked.report.smoothed if record.alpha} == {"m"}


def test_the_user_is_told(auto: Result) -> None:
    done, *others = smoothed_lines(auto.report.smoothed)
    count = sum(record.alpha > 0 for record in auto.report.smoothed)
    assert done.startswith(f"{count} of 3 activations, alpha ")
    assert len(others) == (count < 3)
    assert smoothed_lines(()) == []


def test_a_classifier_behind_a_pool_keeps_its_bytes() -> None:
    """It reads one row of a sample: nothing is smoothed, and no sample is looked at for it."""
    text = """g (float[B,3,8,8] x) => (float[B,5] y) {
        h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k)
        a = Relu (h)
        p = GlobalAveragePool (a)
        f = Flatten (p)
        y = Gemm (f, w, c)
    }"""
    model = text_model(text, k=normal(8, 3, 3, 3), w=normal(8, 5), c=normal(5))
    feeds = [{"x": normal(2, 3, 8, 8, seed=i)} for i in range(6)]
    results = []
    for how in ("auto", False):
        config = Config(QuantizationConfig(per_channel=True, extra_options={"SmoothQuant": how}))
        results.append(ModelQuantizer(config).quantize_model(model, None, feeds))
    on, off = (result.model.SerializeToString(deterministic=True) for result in results)
    assert on == off
    assert {record.reason for record in results[0].report.smoothed} == {"a sample has one row of it"}
