"""Weights that cannot saturate: chosen when ranges are, kept by every way to tune, in the file as in the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import graph

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.channel_moments import channel_moments
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.engine.saturation_certificate import certify
from quark_onnx.graph import io
from quark_onnx.numerics.quantizer import dequantize
from quark_onnx.numerics.saturating_products import exact_product
from quark_onnx.numerics.weight_pairs import LIMIT
from quark_onnx.quantsim import QuantizationSimModel
from quark_onnx.result import Result
from quark_onnx.stages.weight_rounding import channels_needed, round_weights, unsafe_weights

Feed = dict[str, np.ndarray]

LAYERS = {
    "Conv": "(float[1,6,8,8] x) => (float[1,8,8,8] y) <float[8] b> { [n] y = Conv <pads=[1,1,1,1]> (x, w, b) }",
    "grouped": "(float[1,6,8,8] x) => (float[1,8,8,8] y) <float[8] b>"
    " { [n] y = Conv <pads=[1,1,1,1], group=2> (x, w, b) }",
    "Gemm": "(float[16,27] x) => (float[16,8] y) <float[8] b> { [n] y = Gemm <transB=1> (x, w, b) }",
    "MatMul": "(float[1,16,27] x) => (float[1,16,8] y) { [n] y = MatMul (x, w) }",
}
SHAPES = {"Conv": (8, 6, 3, 3), "grouped": (8, 3, 3, 3), "Gemm": (8, 27), "MatMul": (27, 8)}


def proto(layer: str, seed: int = 0) -> Any:
    """A layer whose weights have one sign in most places, and many of whose pairs are too large."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(-0.2, 1, SHAPES[layer]).astype(np.float32)
    return io.to_proto(graph(LAYERS[layer], w=weight))


def data(layer: str, count: int = 24) -> list[Feed]:
    """Inputs that are often at the top of their range, where sums of products are largest."""
    rng = np.random.default_rng(1)
    shape = {"Gemm": (16, 27), "MatMul": (1, 16, 27)}.get(layer, (1, 6, 8, 8))
    return [{"x": np.minimum(rng.exponential(1, shape), 2).astype(np.float32)} for _ in range(count)]


def made(layer: str, preset: str = "S8S8_AAWS", **fields: Any) -> Result:
    start = get_default_config(preset)
    options = {**start.extra_options, **fields.pop("extra_options", {})}
    config = replace(start, **{"per_channel": True, "extra_options": options, **fields})
    return ModelQuantizer(Config(config)).quantize_model(proto(layer), None, data(layer))


def verdicts(model: Any) -> set[str]:
    return {found.verdict for found in certify(io.load(model)).values()}


def noise(model: Any, layer: str, multiply: Any = None) -> float:
    """Mean squared error at the output, without VNNI unless products are told otherwise."""
    float_run = ModelRun(proto(layer))
    total = []
    how = {} if multiply is None else {"multiply": multiply}
    with without_vnni(io.load(model), **how) as run:
        for feed in data(layer)[:6]:
            total.append(np.square(run(feed)[0] - float_run(feed)).mean())
    return float(np.mean(total))


class ModelRun:
    """The float model, as onnxruntime runs it."""

    def __init__(self, model: Any) -> None:
        import onnxruntime as ort

        self.session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, feed: Feed) -> np.ndarray:
        return np.asarray(self.session.run(None, feed)[0])


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("S8S8_AAWS", {}),
    "per tensor": ("S8S8_AAWS", {"per_channel": False}),
    "uint8 activations": ("U8S8_AAWS", {}),
    "AdaRound": ("S8S8_AAWS_ADAROUND", {"extra_options": {"FastFinetune": {"NumIterations": 60}}}),
    "AdaQuant": ("S8S8_AAWS_ADAQUANT", {"extra_options": {"FastFinetune": {"NumIterations": 60}}}),
    "GPTQ": ("S8S8_AAWS_GPTQ", {}),
    "SeqMSE": ("S8S8_AAWS", {"extra_options": {"WeightCalibrateMethod": "SeqMSE"}}),
    "bias correction": ("S8S8_AAWS", {"extra_options": {"BiasCorrection": True}}),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_quantize_ends_with_a_model_that_is_exact_everywhere(way: str, layer: str) -> None:
    """And that is little worse than one rounded freely is with VNNI, which without it is ruined."""
    preset, fields = WAYS[way]
    safe = made(layer, preset, weight_pairs="safe", **fields)
    assert verdicts(safe.model) == {"exact"}
    assert safe.plan.sites["w"].format.dtype == "int8"
    if way != "plain":
        return
    freely = made(layer, preset, weight_pairs="off", **fields)
    assert verdicts(freely.model) == {"may saturate"}
    at_best, without = noise(freely.model, layer, exact_product), noise(freely.model, layer)
    assert without > 10 * at_best
    assert noise(safe.model, layer) < 4 * at_best


@pytest.mark.parametrize("way", ["plain", "AdaRound", "AdaQuant", "GPTQ", "SeqMSE"])
def test_pairs_may_be_those_of_one_tap(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third of three channels stands alone there; in a whole row its neighbour is of the next tap, and unsafe."""
    monkeypatch.setitem(TARGETS, "cpu", replace(TARGETS["cpu"], pairs="tap"))
    preset, fields = WAYS[way]
    found = made("grouped", preset, weight_pairs="safe", **fields)
    coded = found.plan.coded("w")
    assert coded is not None
    assert np.abs(coded.codes[:, 0].astype(int) + coded.codes[:, 1]).max() <= LIMIT
    assert verdicts(found.model) == {"may saturate"}


def test_uint8_is_exact_too_and_loses_nothing() -> None:
    stored, freely = (made("Conv", weight_pairs=how) for how in ("uint8", "off"))
    assert verdicts(stored.model) == {"exact"}
    np.testing.assert_allclose(noise(stored.model, "Conv"), noise(freely.model, "Conv", exact_product), rtol=1e-3)


def test_dynamic_models_need_no_data_for_it() -> None:
    config = QuantizationConfig(use_dynamic_quant=True, activation_type="uint8", per_channel=True)
    found = ModelQuantizer(config).quantize_model(proto("MatMul"), None)
    assert verdicts(found.model) == {"exact"}
    assert found.plan.sites["w"].format.dtype == "int8"


def given_scale(**fields: Any) -> Result:
    """Weights of one size at a scale that the user gives: only larger scales would have safe codes near them."""
    options = {"TensorQuantOverrides": {"w": [{"scale": 1 / 127, "zero_point": 0}]}}
    config = replace(get_default_config("S8S8_AAWS"), extra_options=options | {"Protect": False}, **fields)
    model = io.to_proto(graph(LAYERS["Gemm"], w=np.full((8, 27), 0.99, np.float32)))
    return ModelQuantizer(config).quantize_model(model, None, data("Gemm"))


def test_where_safe_codes_cost_much_the_weight_is_stored_as_uint8() -> None:
    found = given_scale()
    site = found.plan.sites["w"]
    assert site.format.dtype == "uint8" and "w" not in found.plan.rounded
    assert "stored as uint8 with zero point 128" in found.plan.remarks["w"]
    assert float(found.plan.qparams["w"].scale) == np.float32(1 / 127)
    assert verdicts(found.model) == {"exact"}
    safe = given_scale(weight_pairs="safe")
    assert safe.plan.sites["w"].format.dtype == "int8" and verdicts(safe.model) == {"exact"}
    assert safe.report.sqnr["y"] < found.report.sqnr["y"] - 6


def test_a_weight_without_an_unsafe_pair_is_rounded_as_ever() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 27)).clip(-1, 1).astype(np.float32) * 0.003
    weight[:, 0] = 1
    model = io.to_proto(graph(LAYERS["Gemm"], w=weight))
    configs = [replace(get_default_config("S8S8_AAWS"), weight_pairs=how) for how in ("auto", "off")]
    plans = [ModelQuantizer(config).quantize_model(model, None, data("Gemm")) for config in configs]
    assert not plans[0].plan.rounded
    assert plans[0].model == plans[1].model


def test_plans_keep_the_integers(tmp_path: Path) -> None:
    found = made("Conv")
    assert set(found.plan.rounded) == {"w"}
    loaded = Plan.load(found.plan.save(tmp_path / "plan"))
    assert loaded.rounded["w"].same(found.plan.rounded["w"])
    config = replace(get_default_config("S8S8_AAWS"), per_channel=True)
    again = ModelQuantizer(config).quantize_model(proto("Conv"), None, data("Conv"), resume=loaded)
    assert again.model == found.model


def test_what_inputs_do_matters() -> None:
    """Half of the inputs is near 2 and hardly varies, half varies around 0: where they lie says which codes to move."""
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.standard_normal((16, 27)).astype(np.float32)} for _ in range(24)]
    for feed in feeds:
        feed["x"][:, :13] = 2 + 0.02 * feed["x"][:, :13]
    given = {"TensorQuantOverrides": {"w": [{"scale": 1 / 127, "zero_point": 0}]}}  # or a larger one had safe codes
    config = replace(get_default_config("S8S8_AAWS"), weight_pairs="safe", include_cle=False, extra_options=given)
    result = ModelQuantizer(config).quantize_model(proto("Gemm"), None, feeds)
    seen = channel_moments(
        result.evidence.model, feeds, channels_needed(result.evidence.model, result.plan), lambda done: None
    )
    errors = []
    for moments in (seen, {}):
        plan = round_weights(result.evidence.model, replace(result.plan, rounded={}), moments, "safe")
        weight = dequantize(plan.rounded["w"].codes, plan.qparams_of("w"), plan.sites["w"].format)
        lost = weight - float_of(result.evidence.model, "w")
        errors.append(np.mean([np.square(feed["x"] @ lost.T) for feed in feeds]))
    assert errors[0] < 0.9 * errors[1]


# the pass over the data


def test_moments_do_not_depend_on_the_batch() -> None:
    model = graph("(float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Neg (x) }")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, 4, 4)).astype(np.float32) + 1
    cut = [[{"x": x}], [{"x": x[:2]}, {"x": x[2:]}], [{"x": row[None]} for row in x]]
    found = [channel_moments(model, feeds, [("x", 1), ("y", 1)], lambda done: None) for feeds in cut]
    for other in found[1:]:
        for key, pair in found[0].items():
            for a, b in zip(pair, other[key], strict=True):
                np.testing.assert_array_equal(a, b)
    mean, variance = found[0]["y", 1]
    np.testing.assert_allclose(mean, -x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 2, 3)), rtol=1e-4)


def test_moments_of_matrices_and_of_what_is_unknown() -> None:
    model = graph("(float[2,4] x, float[N] u) => (float[2,4] y, float[N] v) { y = Neg (x) v = Neg (u) }")
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    feeds = [{"x": x, "u": np.ones(3, np.float32)}]
    found = channel_moments(model, feeds, [("x", -1), ("x", -2), ("u", -1), ("nothing", 1)], lambda done: None)
    assert found.keys() == {("x", -1), ("x", -2)}
    np.testing.assert_array_equal(found["x", -1][0], x.mean(0))
    np.testing.assert_array_equal(found["x", -2][1], x.var(1))


# simulations


def test_an_exported_simulation_is_exact_everywhere_and_says_what_it_simulated() -> None:
    sim = QuantizationSimModel(proto("Conv"))
    sim.compute_encodings(data("Conv"))
    exported = sim.to_onnx_qdq()
    assert verdicts(exported) == {"exact"}
    stored = {i.name: i.data_type for i in exported.graph.initializer if i.name.endswith("_quantized")}
    assert stored["w_quantized"] == 2  # uint8
    simulated = sim.session
    with without_vnni(io.load(exported)) as run:
        for feed in data("Conv")[:4]:
            wanted = simulated.run(None, feed)[0]
            step = float(sim.quantizer("y").qparams.scale)
            np.testing.assert_allclose(run(feed)[0], wanted, atol=1.01 * step)


def test_a_simulation_of_weights_whose_zero_point_is_the_lowest_code_is_exact_everywhere() -> None:
    """Counted from there neighbours are small, but what the kernel adds are the codes, which are near -128."""
    sim = QuantizationSimModel(io.to_proto(graph(LAYERS["Conv"], w=np.full(SHAPES["Conv"], 0.25, np.float32))))
    weight = sim.quantizer("w")
    weight.use_symmetric_encodings, weight.use_unsigned_symmetric = True, True
    weight.set_fixed_encoding_range((0.0, 2.0))
    sim.compute_encodings(data("Conv"))
    assert verdicts(sim.to_onnx_qdq()) == {"exact"}


def test_a_simulation_without_unsafe_pairs_is_exported_as_int8() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 6, 3, 3)).clip(-1, 1).astype(np.float32) * 0.003
    weight[:, 0, 0, 0] = 1
    sim = QuantizationSimModel(io.to_proto(graph(LAYERS["Conv"], w=weight)))
    sim.compute_encodings(data("Conv"))
    stored = {i.name: i.data_type for i in sim.to_onnx_qdq().graph.initializer}
    assert stored["w_quantized"] == 3  # int8
    assert unsafe_weights(sim.float_model, sim.plan) == set()
