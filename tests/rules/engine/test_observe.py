"""Observation: what is kept of a pass over the data is what numpy finds in all activations, however they came."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from quantized_models import Feed, feeds, graph, settings
from text_models import run

from quark_onnx import Config, ConfigError, DataError, ModelQuantizer
from quark_onnx.engine.observe import WORKERS, observe
from quark_onnx.graph import Model, io
from quark_onnx.numerics.ranges.calibration_statistics import FIRST, Statistics
from quark_onnx.numerics.ranges.percentile import percentile

TEXT = """(float[N,3,6] x) => (float[N,5] y) <float[4,3,3] w, float[4] b, float[16,5] m> {
    [conv] h = Conv (x, w, b) [relu] a = Relu (h) [flat] f = Flatten (a) [gemm] y = Gemm (f, m) }"""
TENSORS = ["x", "h", "a", "y"]


def unseen(done: int) -> None:
    """Nobody looks."""


def activations(model: Model, feed: Feed, tensors: list[str]) -> dict[str, np.ndarray]:
    tapped = io.with_outputs(model, tensors)
    names = [value.name for value in tapped.graph.outputs]
    return feed | dict(zip(names, run(tapped, feed), strict=True))


def scaled(model: Model, factors: list[float]) -> list[Feed]:
    """One feed, times each factor: extremes differ from feed to feed."""
    return [{"x": feeds(model, count=1)[0]["x"] * np.float32(factor)} for factor in factors]


def assert_same(a: dict[str, Statistics], b: dict[str, Statistics]) -> None:
    assert list(a) == list(b)
    for name, s in a.items():
        assert (s.lo, s.hi) == (b[name].lo, b[name].hi), name
        np.testing.assert_array_equal(s.bins.filled, b[name].bins.filled)
        np.testing.assert_array_equal(s.bins.counts, b[name].bins.counts)


def test_it_is_what_numpy_finds_in_all_activations() -> None:
    """The graph has nothing to sum in another order: `x`, its double and its Relu are exact."""
    model = graph("(float[N,8] x) => (float[N,8] y) { d = Add (x, x) y = Relu (d) }")
    data, seen = feeds(model, count=7), []
    found = observe(model, iter(data), ["y", "x", "d"], seen.append)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    whole = np.concatenate([feed["x"] for feed in data])
    expected = {"y": np.maximum(2 * whole, 0), "x": whole, "d": 2 * whole}
    assert_same(found, {name: Statistics.of(array) for name, array in expected.items()})


def test_layers_are_within_the_rounding_of_their_sums() -> None:
    model = graph(TEXT)
    data = feeds(model, count=5)
    found = observe(model, data, TENSORS, unseen)
    rows = [activations(model, feed, TENSORS) for feed in data]
    for name in TENSORS:
        whole = np.concatenate([row[name].ravel() for row in rows])
        bound = 16 * np.finfo(np.float32).eps * np.abs(whole).max()
        assert found[name].count == whole.size
        np.testing.assert_allclose((found[name].lo, found[name].hi), (whole.min(), whole.max()), rtol=0, atol=bound)


def test_neither_order_nor_batches_change_a_bit() -> None:
    model = graph("(float[N,8] x) => (float[N,8] y) { y = Relu (x) }")
    data = feeds(model, count=6)
    found = observe(model, data, ["x", "y"], unseen)
    assert_same(observe(model, data[::-1], ["x", "y"], unseen), found)
    assert_same(observe(model, [{"x": np.concatenate([f["x"] for f in data])}], ["x", "y"], unseen), found)
    halves = [observe(model, half, ["x", "y"], unseen) for half in (data[:2], data[2:])]
    assert_same({name: halves[0][name] + halves[1][name] for name in found}, found)


RELU = graph("(float[N] x) => (float[N] y) { y = Relu (x) }")


def test_of_values_that_cannot_decide_only_their_number_is_kept() -> None:
    data = [{"x": np.random.default_rng(seed).standard_normal(FIRST, np.float32)} for seed in range(4)]
    whole, seen = observe(RELU, data, ["x", "y"], unseen), list[int]()
    found = observe(RELU, data, ["x", "y"], seen.append, percent={"y": 99.9999})
    assert seen == [1, 2, 3, 4]
    assert_same({"x": found["x"]}, {"x": whole["x"]})
    assert (found["y"].lo, found["y"].hi, found["y"].count) == (whole["y"].lo, whole["y"].hi, whole["y"].count)
    assert found["y"].told > 0 == found["x"].told
    assert percentile(found["y"], 99.9999, True) == percentile(whole["y"], 99.9999, True)


def test_what_the_first_values_do_not_settle_is_observed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """One loud feed in front of 70 quiet ones: 0.1 % of all values are more than those that were told apart.

    One worker: of two, the second may count a quiet feed first, which settles it.
    """
    monkeypatch.setattr("quark_onnx.engine.observe.WORKERS", 1)
    loud = np.random.default_rng(0).standard_normal(FIRST, np.float32)
    data = [{"x": loud}, *[{"x": loud / 1000}] * 70]
    seen = list[int]()
    found = observe(RELU, data, ["x", "y"], seen.append, percent={"y": 99.9})
    assert_same(found, observe(RELU, data, ["x", "y"], unseen))
    assert len(seen) == 71
    assert observe(RELU, data, ["y"], unseen, percent={"y": 100.0})["y"].told > 0


def test_feeds_are_not_read_far_ahead() -> None:
    model, done, ahead = graph(TEXT), [0], []

    def reader() -> Iterator[Feed]:
        for index, feed in enumerate(feeds(model, count=20)):
            ahead.append(index - done[-1])
            yield feed

    observe(model, reader(), TENSORS, done.append)
    assert done[-1] == 20
    assert max(ahead) <= WORKERS + 1


def test_what_is_not_finite_is_counted_and_does_not_become_an_extreme() -> None:
    model = graph("(float[N] x) => (float[N] y) { y = Reciprocal (x) }")
    found = observe(model, [{"x": np.array([0, 2, -4], np.float32)}, {"x": np.array([8], np.float32)}], ["y"], unseen)
    assert (found["y"].lo, found["y"].hi, found["y"].nonfinite, found["y"].count) == (-0.25, 0.5, 1, 4)


def test_a_tensor_may_be_empty_in_some_feeds() -> None:
    model = graph("(float[N] x, int64[1] k) => (float[M] y) <int64[1] z> { y = Slice (x, z, k) }", z=np.array([0]))
    data = [{"x": np.full(4, float(k) + 3, np.float32), "k": np.array([k])} for k in (0, 3, 0, 1)]
    found = observe(model, data, ["y"], unseen)["y"]
    assert (found.lo, found.hi, found.count) == (4, 6, 4)
    assert observe(model, data[:1], ["y"], unseen)["y"].count == 0


def test_a_feed_that_fails_stops_the_pass() -> None:
    model = graph("(float[N] x) => (float[2] y) <int64[1] s> { y = Reshape (x, s) }", s=np.array([2]))
    good, bad = {"x": np.ones(2, np.float32)}, {"x": np.ones(3, np.float32)}
    assert observe(model, [good, good], ["y"], unseen)["y"].count == 4
    with pytest.raises(DataError, match=r"x \(3,\)"):
        observe(model, [good, bad, good, good], ["y"], unseen)


def test_a_moving_average_follows_the_feeds_in_their_order() -> None:
    model = graph(TEXT)
    data = scaled(model, [1, 3, 0.5, 2])
    found = observe(model, data, TENSORS, unseen, moving=0.25)
    for name in TENSORS:
        each = [observe(model, [feed], [name], unseen)[name] for feed in data]
        lo, hi = each[0].lo, each[0].hi
        for s in each[1:]:
            lo, hi = lo + 0.25 * (s.lo - lo), hi + 0.25 * (s.hi - hi)
        assert (found[name].lo, found[name].hi) == pytest.approx((lo, hi), rel=1e-6)
    widest = observe(model, data, TENSORS, unseen)
    assert all(found[name].hi < widest[name].hi for name in TENSORS)
    assert all(all(map(np.array_equal, found[name].bins, widest[name].bins)) for name in TENSORS)
    turned = observe(model, data[::-1], TENSORS, unseen, moving=0.25)
    assert all(turned[name].hi != found[name].hi for name in TENSORS)


def test_a_moving_average_with_constant_1_is_the_last_feed() -> None:
    model = graph(TEXT)
    data = scaled(model, [1, 3, 0.5])
    last = observe(model, data[-1:], TENSORS, unseen)
    found = observe(model, data, TENSORS, unseen, moving=1.0)
    assert {n: (s.lo, s.hi) for n, s in found.items()} == {n: (s.lo, s.hi) for n, s in last.items()}


def test_the_option_narrows_the_scales_of_a_plan() -> None:
    model = graph(TEXT)
    data = scaled(model, [1, 1, 1, 9])
    options = {"calibrate_method": "MinMax", "include_cle": False, "activation_type": "uint8"}

    def scale(**more: object) -> float:
        result = ModelQuantizer(Config(settings(**options, **more))).quantize_model(io.to_proto(model), None, data)
        return float(result.plan.qparams_of("x").scale)

    wide, narrow = scale(), scale(CalibMovingAverage=True, CalibMovingAverageConstant=0.125)
    assert narrow / wide == pytest.approx((1 + 0.125 * 8) / 9, rel=1e-5)
    assert scale(CalibMovingAverage=False, CalibMovingAverageConstant=0.125) == wide


@pytest.mark.parametrize("method", ["Percentile", "tf", "Entropy"])
def test_only_minmax_has_a_moving_average(method: str) -> None:
    settings(calibrate_method="MinMax", CalibMovingAverage=True)
    settings(calibrate_method=method, CalibMovingAverage=False)
    with pytest.raises(ConfigError, match="CalibMovingAverage is a way of MinMax"):
        settings(calibrate_method=method, CalibMovingAverage=True)
