"""The stage that chooses ranges: which method serves which tensor, given ranges to the bit, weights in all shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as law
from hypothesis import strategies as st
from quantized_models import Feed, graph, placed, settings
from text_models import text_model

from quark_onnx import ModelQuantizer, QuantizationConfig
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, QParams
from quark_onnx.core.settings.range_methods import METHODS, Ranging
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model
from quark_onnx.numerics.quantizer import along, qparams
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.methods import find_range
from quark_onnx.stages.ranges import choose_ranges, observed_tensors, weight_range

NET = """(float[64,4] x) => (float[64,5] y, float[64,64] z) <float[4,5] w, float[4] k>
    { [sum] a = Add (x, k) [dot] y = MatMul (a, w) [turn] t = Transpose (x) [square] z = MatMul (x, t) }"""
LAYER = "(float[64,4] x) => (float[64,5] y) <float[4,5] w, float[5] b> { [dot] y = Gemm (x, w, b) }"
RNG = np.random.default_rng(3)
HEAVY = RNG.standard_t(2, (64, 4)).astype(np.float32)


def ranged(model: Model, feed: Feed | None = None, **fields: Any) -> tuple[Plan, dict[str, Statistics]]:
    """A plan with its ranges, and the statistics they were taken from."""
    sites = placed(model, **fields)
    feeds = [feed or {"x": HEAVY}]
    statistics = observe(model, feeds, observed_tensors(sites), lambda done: None)
    return choose_ranges(model, sites, statistics, settings(**fields)), statistics


def scales(plan: Plan) -> dict[str, Any]:
    return {group: (q.scale.tolist(), q.zero_point.tolist()) for group, q in plan.qparams.items()}


def changed(before: Plan, after: Plan) -> set[str]:
    old, new = scales(before), scales(after)
    assert old.keys() == new.keys()
    return {group for group in old if old[group] != new[group]}


# Which method


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("MinMax", "tf", "NonOverflow")])
def test_activations_take_the_method_of_the_configuration(method: str) -> None:
    model = graph(NET)
    before, _ = ranged(model)
    after, statistics = ranged(model, calibrate_method=method)
    assert changed(before, after) <= {"x", "a"}
    format, how = after.sites["x"].format, settings(calibrate_method=method).activation_ranging
    assert after.qparams["x"].same(qparams(*find_range(statistics["x"], format, how), format))


def test_constants_are_exact_data() -> None:
    model = graph(NET, k=np.array([100, 0.1, 0.2, 0.3], np.float32))
    plan, _ = ranged(model, calibrate_method="Percentile", Percentile=60.0)
    q = plan.qparams["k"]
    assert float(q.scale) * 255 == pytest.approx(100)
    asked, _ = ranged(model, TensorQuantOverrides={"k": {"calibrate_method": "Percentile"}}, Percentile=60.0)
    assert float(asked.qparams["k"].scale) * 255 < 1


@pytest.mark.parametrize(("tensor", "method"), [("a", "Percentile"), ("w", "MinMSE"), ("k", "Percentile")])
def test_one_tensor_has_a_method_of_its_own(tensor: str, method: str) -> None:
    model, options = graph(NET, w=HEAVY[:4, :1] * np.ones(5, np.float32)), {"Percentile": 80.0}
    before, _ = ranged(model, **options)
    after, _ = ranged(model, TensorQuantOverrides={tensor: {"calibrate_method": method}}, **options)
    assert changed(before, after) <= {tensor}
    wide, _ = ranged(model, calibrate_method="Percentile", WeightCalibrateMethod="MinMSE", **options)
    kept, _ = ranged(
        model,
        calibrate_method="Percentile",
        WeightCalibrateMethod="MinMSE",
        TensorQuantOverrides={tensor: {"calibrate_method": "MinMax"}},
        **options,
    )
    assert changed(wide, kept) <= {tensor}
    assert kept.qparams[tensor].same(before.qparams[tensor])


def test_weights_have_their_own_method() -> None:
    model = graph(NET, w=np.append(np.linspace(-1, 1, 19), 30).reshape(4, 5).astype(np.float32))
    before, _ = ranged(model)
    after, _ = ranged(model, WeightCalibrateMethod="Percentile", Percentile=90.0)
    assert changed(before, after) == {"w"}
    assert after.qparams["w"].scale < before.qparams["w"].scale / 10


# Ranges that are given


@law(deadline=None, max_examples=40)
@given(st.data())
def test_given_scales_and_zero_points_come_out_to_the_bit(data: st.DataObject) -> None:
    draw, model = data.draw, graph(NET)
    scale = st.floats(2.0**-80, 2.0**80, width=32)
    kind = draw(st.sampled_from(["int8", "uint8", "uint16", "int16"]))
    low = -(2 ** (int(kind.lstrip("uint")) - 1)) if kind[0] == "i" else 0
    zero = low + draw(st.integers(0, 2 ** int(kind.lstrip("uint")) - 1))
    weights = [{"axis": 1, "scale": draw(scale), "zero_point": draw(st.integers(-128, 127))} for _ in range(5)]
    overrides = {"a": {"quant_type": kind, "scale": draw(scale), "zero_point": zero}, "w": weights}
    symmetric = draw(st.booleans())
    plan, _ = ranged(model, TensorQuantOverrides=overrides, ActivationSymmetric=symmetric, weight_pairs="off")
    site, q = plan.sites["a"], plan.qparams["a"]
    shift = 0 if site.format.dtype == kind else 2 ** (site.format.bits - 1)  # stored as unsigned: the same values
    assert (float(q.scale), int(q.zero_point) - shift) == (overrides["a"]["scale"], zero)
    assert plan.qparams["w"].scale.tolist() == [channel["scale"] for channel in weights]
    assert plan.qparams["w"].zero_point.tolist() == [channel["zero_point"] for channel in weights]


def test_given_ranges_serve_activations_and_channels() -> None:
    model = graph(NET)
    channels = [{"axis": 1, "rmin": -float(i), "rmax": 2.0 * i} for i in range(1, 6)]
    asked = {"a": {"rmin": -1.0, "rmax": 3.0}, "w": channels}
    plan, statistics = ranged(model, TensorQuantOverrides=asked)
    assert "a" not in statistics
    assert plan.qparams["a"].same(qparams(-1.0, 3.0, plan.sites["a"].format))
    high = 2.0 * np.arange(1, 6)
    assert plan.qparams["w"].same(qparams(-high / 2, high, plan.sites["w"].format))
    before, _ = ranged(model)
    assert all(plan.qparams[name].same(before.qparams[name]) for name in ("x", "k"))


def test_a_given_scale_is_not_raised_for_a_bias() -> None:
    model = graph(LAYER, b=np.full(5, 1e6, np.float32))
    raised, _ = ranged(model, feed={"x": HEAVY * np.float32(1e-3)})
    assert "scale raised" in raised.remarks["w"]
    assert raised.qparams["w"].scale > 1e-5
    asked = {"w": {"scale": 1e-5, "zero_point": 0}}
    left, _ = ranged(model, feed={"x": HEAVY * np.float32(1e-3)}, TensorQuantOverrides=asked)
    assert "the bias does not fit into int32" in left.notes["dot"]


def test_a_scale_that_is_raised_stays_a_power_of_two() -> None:
    model = graph(LAYER, b=np.full(5, 1e6, np.float32))
    plan, _ = ranged(model, feed={"x": HEAVY * np.float32(1e-3)}, UsePowerOf2Scale=True, per_channel=True)
    assert "scale raised" in plan.remarks["w"]
    assert np.all(np.frexp(plan.qparams["w"].scale)[0] == 0.5)


@pytest.mark.parametrize("how", ["adaround", "adaquant", "SeqMSE"])
def test_tuning_keeps_a_given_scale(how: str) -> None:
    """And finds another one for a weight whose scale is its own to choose."""
    model = text_model(
        "g (float[8,16] x) => (float[8,5] z) { [one] h = Gemm (x, w) [two] z = MatMul (h, v) }",
        w=np.random.default_rng(1).standard_normal((16, 12)).astype(np.float32),
        v=np.random.default_rng(2).standard_t(3, (12, 5)).astype(np.float32),
    )
    options: dict[str, Any] = {
        "TensorQuantOverrides": {"w": {"scale": 0.05, "zero_point": 0}, "v": {"quant_type": "int4"}}
    }
    tunes = how != "SeqMSE"
    options |= (
        {"FastFinetune": {"OptimAlgorithm": how, "NumIterations": 20}} if tunes else {"WeightCalibrateMethod": how}
    )
    config = QuantizationConfig(include_cle=False, include_fast_ft=tunes, extra_options=options)
    rng = np.random.default_rng(3)
    data = [{"x": rng.standard_normal((8, 16)).astype(np.float32)} for _ in range(32)]
    plan = ModelQuantizer(config).quantize_model(model, None, data).plan
    assert plan.qparams_of("w").scale == np.float32(0.05)
    assert plan.qparams_of("v").scale < plan.qparams["v"].scale


# The narrowest range


def test_narrow_ranges_of_activations_are_widened_at_the_top() -> None:
    feed = {"x": np.linspace(-1e-3, 2e-3, 256, dtype=np.float32).reshape(64, 4)}
    model = graph(NET, k=np.full(4, 1e-3, np.float32))
    plan, _ = ranged(model, feed, MinimumRealRange=1.0)
    assert plan.qparams["x"].same(qparams(-np.float32(1e-3), 1 - np.float64(np.float32(1e-3)), plan.sites["x"].format))
    assert float(plan.qparams["k"].scale) * 255 == pytest.approx(1e-3)
    before, _ = ranged(model, feed)
    assert changed(before, ranged(model, feed, MinimumRealRange=1e-4)[0]) == set()


def test_given_ranges_are_not_widened() -> None:
    asked = {"a": {"rmin": 0.0, "rmax": 0.25}}
    plan, _ = ranged(graph(NET), MinimumRealRange=1.0, TensorQuantOverrides=asked)
    assert plan.qparams["a"].same(qparams(0.0, 0.25, plan.sites["a"].format))


def test_the_target_says_how_narrow_a_range_may_be() -> None:
    feed = {"x": np.zeros((64, 4), np.float32)}
    fields = {"activation_type": "uint8", "feed": feed}
    assert float(ranged(graph(NET), **fields)[0].qparams["x"].scale) == 1
    assert float(ranged(graph(NET), target="qnn", **fields)[0].qparams["x"].scale) * 255 == pytest.approx(1e-4)


# Biases with scales of their own


@pytest.mark.parametrize(("options", "bits"), [({"Int32Bias": False}, 8), ({"Int16Bias": True}, 16)])
def test_narrow_biases_have_the_scale_of_their_largest_value(options: dict[str, bool], bits: int) -> None:
    model = graph(LAYER, b=np.float32([-3, 1, 2, 0, -1]))
    plan, _ = ranged(model, **options)
    assert float(plan.qparams["b"].scale) == pytest.approx(3 / (2 ** (bits - 1) - 1))
    assert int(plan.qparams["b"].zero_point) == 0
    assert "b" not in ranged(model)[0].qparams


# Weights in all shapes

SHAPES: dict[str, tuple[int | None, int | None]] = {
    "tensor": (None, None),
    "rows": (0, None),
    "columns": (1, None),
    "blocks of rows": (0, 4),
    "blocks of columns": (1, 3),
    "one block": (2, 99),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("axis", "block"), SHAPES.values(), ids=SHAPES)
def test_every_scale_of_a_weight_is_that_of_its_own_values(method: str, axis: int | None, block: int | None) -> None:
    weight = np.random.default_rng(5).standard_t(3, (9, 7, 5)).astype(np.float32)
    format, how = Format(4, True, True, axis, block), Ranging(method, 95.0, candidates=(80.0, 95.0), bins=64, levels=8)
    lo, hi = weight_range(weight, format, how)
    q = qparams(lo, hi, format)
    wide = np.broadcast_to(along(q.scale, weight.shape, format), weight.shape)
    for index in [(0, 0, 0), (8, 6, 4), (4, 3, 2), (3, 2, 1)]:
        mine = weight
        if axis is not None:
            at = index[axis]
            part = slice(at - at % block, at - at % block + block) if block else slice(at, at + 1)
            cut = [slice(i, i + 1) if block else slice(None) for i in index]
            mine = weight[tuple(part if a == axis else s for a, s in enumerate(cut))]
        single = Format(4, True, True)
        expected: QParams = qparams(*find_range(Distribution.of_values(mine), single, how), single)
        assert wide[index] == expected.scale


def test_large_weights_are_looked_at_through_a_histogram() -> None:
    weight = np.random.default_rng(6).standard_normal(200_000).astype(np.float32)
    lo, hi = weight_range(weight, Format(4, True, True), Ranging("MinMSE"))
    exact = find_range(Distribution.of_values(weight), Format(4, True, True), Ranging("MinMSE"))
    assert max(-lo, hi) == pytest.approx(max(-exact[0], exact[1]), rel=0.01)
