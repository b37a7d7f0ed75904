"""Protection: small models with one fault each, and their twins without it, to which nothing happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantized_models import graph

from quark_onnx import ModelQuantizer
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Model, io
from quark_onnx.result import Result
from quark_onnx.stages.protect.protection import GOAL, LOST

RNG = np.random.default_rng(0)
Feed = dict[str, np.ndarray]


def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def quantize(model: Model, data: list[Feed], **fields: Any) -> Result:
    config = QuantizationConfig(**{"per_channel": True, "include_cle": False, **fields})
    return ModelQuantizer(config).quantize_model(io.to_proto(model), None, data)


def amplifier(offset: float, batch: str = "1") -> tuple[Model, list[Feed]]:
    """A filter bank, its power, a logarithm, and a layer behind it: loud samples, and quiet ones whose power is lost.

    offset: what is added in front of the logarithm; a large one leaves nothing to amplify.
    """
    text = """(float[1,8,1,32] x) => (float[1,4,1,32] y) <float[16,8,1,1] f, float o, float[4,16,1,1] w>
    { h = Conv (x, f) p = Mul (h, h) s = Add (p, o) l = Log (s) y = Conv (l, w) }"""
    text = text.replace("float[1,8", f"float[{batch},8").replace("float[1,4,1,32", f"float[{batch},4,1,32")
    model = graph(text, f=draw(16, 8, 1, 1, scale=0.4), o=np.float32(offset), w=draw(4, 16, 1, 1, scale=0.3))
    return model, [{"x": draw(1, 8, 1, 32, scale=10.0 ** -(i % 4))} for i in range(8)]


def test_what_feeds_a_logarithm_stays_float() -> None:
    model, data = amplifier(1e-9)
    plain, result = (quantize(model, data, extra_options={"Protect": on}) for on in (False, True))
    assert plain.report.outputs["y"].db < LOST and not plain.report.protected
    assert result.report.outputs["y"].db >= GOAL
    (region,) = result.report.protected
    assert region.action == "float" and region.output == "y" and "Conv_h" in region.nodes
    assert region.before < LOST and region.after >= GOAL
    assert result.plan.notes["Conv_h"].startswith("protected: with the quantizer")
    assert "Conv_y" in result.plan.nodes  # behind the logarithm all is well
    assert 0 < region.products < 1


def test_samples_without_values_do_not_judge() -> None:
    """Every second one is empty: those that are looked at are others."""
    model, data = amplifier(1e-9, "N")
    empty = {"x": np.zeros((0, 8, 1, 32), np.float32)}
    result = quantize(model, [feed for loud in data for feed in (empty, loud)], extra_options={"Protect": True})
    assert {"Conv_h"} <= {node for region in result.report.protected for node in region.nodes}


def test_nothing_happens_where_nothing_is_amplified() -> None:
    model, data = amplifier(100.0)
    plain, result = (quantize(model, data, extra_options={"Protect": on}) for on in (False, True))
    assert result.report.protected == ()
    assert result.model.SerializeToString() == plain.model.SerializeToString()


def parts(factor: float) -> tuple[Model, list[Feed]]:
    """Two layers whose outputs a third one reads under one scale; one of both is so many times the other."""
    text = """(float[1,8,4,4] x) => (float[1,4,4,4] y) <float[4,8,1,1] a, float[4,8,1,1] b, float[4,8,1,1] w>
    { f = Conv (x, a) g = Conv (x, b) c = Concat <axis = 1> (f, g) y = Conv (c, w) }"""
    w = draw(4, 8, 1, 1)
    w[:2, :4], w[2:, 4:] = 0, 0  # outputs of their own for both parts
    w[2:, :4] /= factor
    model = graph(text, a=draw(4, 8, 1, 1) * np.float32(factor), b=draw(4, 8, 1, 1), w=w)
    return model, [{"x": draw(1, 8, 4, 4)} for _ in range(8)]


def test_parts_with_far_ranges_do_not_share_a_scale() -> None:
    model, data = parts(1000.0)
    plain, result = (quantize(model, data, extra_options={"Protect": on}) for on in (False, True))
    assert plain.report.outputs["y"].db < LOST
    assert result.report.outputs["y"].db >= GOAL
    assert {"Concat_c"} <= {node for region in result.report.protected for node in region.nodes}


def test_parts_with_equal_ranges_share_it() -> None:
    model, data = parts(1.0)
    assert quantize(model, data).report.protected == ()


def channels(factor: float) -> tuple[Model, list[Feed]]:
    """A depthwise layer, K = 9, with one channel whose weights are so many times the others, clipped behind it."""
    text = """(float[1,8,8,8] x) => (float[1,8,8,8] y) <float[8,1,3,3] d, float low, float high, float[8,8,1,1] w>
    { h = Conv <group = 8, pads = [1,1,1,1]> (x, d) s = Clip (h, low, high) y = Conv (s, w) }"""
    d = draw(8, 1, 3, 3)
    d[0] *= factor
    model = graph(text, d=d, low=np.float32(0), high=np.float32(6), w=draw(8, 8, 1, 1))
    return model, [{"x": draw(1, 8, 8, 8)} for _ in range(8)]


@pytest.mark.parametrize(("factor", "own"), [(3000.0, True), (1.0, False)])
def test_weights_that_one_scale_kills_get_scales_of_their_own(factor: float, own: bool) -> None:
    model, data = channels(factor)
    result = quantize(model, data, per_channel=False)
    weights = {name: site for name, site in result.plan.sites.items() if site.role == "weight"}
    assert (weights["d"].format.axis == 0) is own
    assert [region.action for region in result.report.protected if "d" in region.tensors] == ["own scales"] * own
    assert set(result.plan.nodes) >= {"Conv_h", "Conv_y"}  # no layer was given up for it


@pytest.mark.parametrize("options", [{"HighBiasAbsorption": True}, {"CLESteps": 2}, {"CLEBalanceMethod": "max"}])
def test_so_they_do_behind_equalization_as_it_is_asked_for(options: dict[str, Any]) -> None:
    """Options of equalization do not go with a scale per channel, where the user asks for both."""
    model, data = channels(3000.0)
    result = quantize(model, data, per_channel=False, include_cle=True, extra_options=options)
    assert [region.action for region in result.report.protected] == ["own scales"]


@pytest.mark.parametrize("name", ["Conv_h", "h"])
def test_names_that_are_forbidden_stay_quantized(name: str) -> None:
    model, data = amplifier(1e-9)
    result = quantize(model, data, extra_options={"Protect": [f"!{name}"]})
    assert "Conv_h" in result.plan.nodes and "h" in result.plan.sites
    assert all("Conv_h" not in region.nodes for region in result.report.protected)


def test_names_that_are_asked_for_stay_float_beside_scales_of_their_own() -> None:
    model, data = channels(3000.0)
    result = quantize(model, data, per_channel=False, extra_options={"Protect": ["Conv_y"]})
    assert result.plan.notes["Conv_y"] == "extra option Protect asks for it" and "w" not in result.plan.sites
    assert [region.action for region in result.report.protected] == ["own scales"]
    assert result.plan.remarks["d"].startswith("protected: a scale per channel: with the quantizer of 'd'")


def test_a_model_that_is_noisy_everywhere_stays_quantized() -> None:
    """Four bits throughout: to reach the goal more than half of the integer work would go."""
    layers = " ".join(f"h{i + 1} = Conv (h{i}, w{i})" for i in range(6))
    declared = ", ".join(f"float[8,8,1,1] w{i}" for i in range(6))
    model = graph(f"(float[1,8,4,4] h0) => (float[1,8,4,4] h6) <{declared}> {{ {layers} }}")
    data = [{"h0": draw(1, 8, 4, 4)} for _ in range(8)]
    result = quantize(model, data, activation_type="int4", weight_type="int4")
    assert result.report.outputs["h6"].db < GOAL
    assert len(result.plan.nodes) >= 3


def test_equal_inputs_give_equal_plans() -> None:
    model, data = amplifier(1e-9)
    first, second = (quantize(model, data) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.report.protected == second.report.protected


def test_a_resumed_plan_is_not_protected_again() -> None:
    model, data = amplifier(1e-9)
    config = QuantizationConfig(per_channel=True, include_cle=False)
    plain = quantize(model, data, extra_options={"Protect": False}).plan
    resumed = ModelQuantizer(config).quantize_model(io.to_proto(model), None, data, resume=plain)
    assert resumed.plan.nodes == plain.nodes and resumed.report.protected == ()
