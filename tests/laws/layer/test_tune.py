"""Tuning one layer, from samples to codes: never worse on held-out samples, the same on any number of workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import absmax_scale

from quark_onnx.numerics.activation_functions import Activation, Clip, Relu
from quark_onnx.numerics.layer.candidates import Scorer
from quark_onnx.numerics.layer.drawn_positions import Samples
from quark_onnx.numerics.layer.held_out_split import LayerData, held_out
from quark_onnx.numerics.layer.im2col import ConvShape, every_position, patches, rows_of
from quark_onnx.numerics.layer.integer_bias import LIMIT
from quark_onnx.numerics.layer.sampling import Layer, bytes_of, sample
from quark_onnx.numerics.layer.tune import Tuned, tune
from quark_onnx.numerics.parallel_blocks import BLOCK, in_order, row_blocks
from quark_onnx.numerics.rounding.methods import METHODS
from quark_onnx.numerics.rounding.moments import ActiveMeans, Moments, Sums
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, PER_ROW, PER_TENSOR, WeightGrid, nearest

SX, ZX = 0.05, -128
law = settings(deadline=None, max_examples=10)


class Case:
    """A convolution of correlated, quantized images, and the activation function behind it."""

    def __init__(
        self,
        seed: int = 0,
        *,
        samples: int = 24,
        group: int = 1,
        outputs: int = 8,
        bits: int = 4,
        shared: tuple[int, ...] = PER_TENSOR,
        activation: Activation | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        channels = 4
        self.activation = Relu() if activation is None else activation
        self.shape = ConvShape((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), group)
        kernel = rng.standard_normal((outputs, channels // group, 3, 3)).astype(np.float32)
        self.weight = rows_of(kernel, self.shape)
        self.bias = rng.standard_normal(self.weight.shape[:2]).astype(np.float32)
        coarse = rng.standard_normal((samples, channels, 4, 4)) + rng.standard_normal((samples, 1, 4, 4))
        smooth = np.repeat(np.repeat(coarse, 2, 2), 2, 3) + 0.2 * rng.standard_normal((samples, channels, 8, 8))
        self.x = np.maximum(smooth, 0).astype(np.float32)
        self.codes = np.clip(np.rint(self.x / SX) + ZX, -128, 127).astype(np.int8)
        self.held = held_out(samples, 0.25, seed)
        self.layer = Layer(self.weight, self.bias, self.shape, self.activation.region(0.2))
        self.samples = Samples.of([self.x[:5], self.x[5:]], [self.codes[:5], self.codes[5:]], SX, ZX)
        self.high = 2 ** (bits - 1) - 1
        self.grid = WeightGrid(absmax_scale(self.weight, self.high, shared), -self.high, self.high, shared)

    def data(self, **more: Any) -> LayerData:
        return sample(self.layer, self.samples, self.held, **{"positions": 600, "keep": 300, **more})

    def tune(self, chosen: TuningSettings, data: LayerData | None = None, **more: Any) -> Tuned:
        options = {"activation": self.activation, "input_scale": SX, **more}
        return tune(self.weight, options.pop("bias", self.bias), data or self.data(), self.grid, chosen, **options)


QUICK = TuningSettings(num_iterations=100, polish=2)
SETTINGS = {
    "nearest": replace(QUICK, method="nearest", polish=0),
    "adaround": QUICK,
    "adaround, sampled": replace(QUICK, objective="sampled", batch=64),
    "adaround, plan's scale": replace(QUICK, scale_search=False),
    "adaround, bias stays": replace(QUICK, update_bias=False),
    "adaquant": replace(QUICK, method="adaquant", learning_rate=0.02),
    "adaquant, rate per weight": replace(QUICK, method="adaquant", learning_rate=1e-3, absolute=True, polish=0),
}
by_settings = pytest.mark.parametrize("chosen", SETTINGS.values(), ids=SETTINGS)


def assert_same(a: Tuned, b: Tuned) -> None:
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


@by_settings
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("shared", [PER_TENSOR, PER_CHANNEL, PER_ROW], ids=["tensor", "channel", "row"])
def test_a_valid_and_better_layer(chosen: TuningSettings, group: int, shared: tuple[int, ...]) -> None:
    case = Case(group=group, shared=shared)
    got = case.tune(chosen)
    np.testing.assert_array_equal(got.codes, np.rint(got.codes))
    assert np.abs(got.codes).max() <= case.high
    assert got.scale.shape == case.bias.shape and np.all(got.scale > 0)
    if shared:
        np.testing.assert_array_equal(got.scale, np.broadcast_to(got.scale.max(shared, keepdims=True), got.scale.shape))
    if not chosen.scale_search:
        np.testing.assert_array_equal(got.scale, case.grid.scale)
    inside = np.abs(got.codes) < case.high
    if chosen.method == "adaround":  # up or down; a slack for the division in float32
        assert np.abs(case.weight / got.scale[..., None] - got.codes)[inside].max() < 1 + 2.0**-20
    if not chosen.update_bias:
        np.testing.assert_array_equal(got.bias, case.bias)
    assert got.held_after <= got.held_before
    assert got.accepted and got.choice != "raw"
    assert got.held_after < 0.9 * got.held_before
    assert (got.iterations > 0) == (chosen.method != "nearest")


@law
@given(st.integers(0, 2**16), st.sampled_from(list(SETTINGS)), st.integers(1, 16), st.sampled_from([1, 4]))
def test_few_samples_never_make_it_worse_on_those_held_out(seed: int, name: str, samples: int, group: int) -> None:
    """With 60 positions for 36 unknowns a row, or fewer, the learned rounding may fit noise: then it is not taken."""
    case = Case(seed, samples=samples, group=group, activation=Clip(0, 6))
    data = case.data(positions=60, keep=60)
    got = case.tune(SETTINGS[name], data)
    assert got.held_after <= got.held_before
    scorer = Scorer.of(data, case.activation, None, SX)
    kept = scorer.held.kept
    assert kept is not None
    bias = got.bias
    assert bias is not None
    out = kept.z @ np.swapaxes(got.codes * got.scale[..., None], 1, 2) + bias[:, None]
    error = np.square(case.activation.value(out) - case.activation.value(kept.y)).mean(1).sum()
    np.testing.assert_allclose(got.held_after, error, rtol=1e-4, atol=1e-6)


def test_adaround_beats_nearest_and_a_bias_alone_helps() -> None:
    case = Case(1, samples=60)
    data = case.data(positions=3000, keep=1500)
    learned = case.tune(replace(QUICK, num_iterations=300, polish=5), data)
    near = case.tune(SETTINGS["nearest"], data)
    assert learned.choice == "tuned"
    assert learned.held_after < 0.75 * near.held_after < near.held_before
    assert learned.held_after < 0.05 * learned.signal


@pytest.mark.parametrize("name", ["adaround", "adaround, sampled", "adaquant"])
def test_the_same_bits_for_any_number_of_workers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quark_onnx.numerics.parallel_blocks.BLOCK", 700)  # blocks of 32 rows, the fewest
    monkeypatch.setattr("quark_onnx.numerics.layer.sampling.MOST", 300)
    monkeypatch.setattr("quark_onnx.numerics.layer.sampling.FEWEST", 50)
    case = Case(2, outputs=80, samples=20)
    assert len(row_blocks(case.weight.shape)) == 3
    results = []
    for workers in (0, 1, 2, 3):
        if workers == 0:
            results.append((case.data(), case.tune(SETTINGS[name])))
            continue
        with ThreadPoolExecutor(workers) as pool:
            data = case.data(pool=pool)
            results.append((data, case.tune(SETTINGS[name], data, pool=pool)))
    for data, tuned in results[1:]:
        assert_same(tuned, results[0][1])
        np.testing.assert_array_equal(data.train.moments.zz, results[0][0].train.moments.zz)


def test_seeds() -> None:
    case = Case(3)
    assert_same(case.tune(SETTINGS["adaround, sampled"]), case.tune(SETTINGS["adaround, sampled"]))
    one, other = (case.data(seed=(seed, 5)) for seed in (1, 2))
    assert not np.array_equal(one.train.moments.zz, other.train.moments.zz)


def test_without_a_bias_none_is_fitted() -> None:
    case = Case(4)
    case.bias[:] = 0
    got = case.tune(QUICK, bias=None)
    assert got.bias is None
    assert got.held_after <= got.held_before
    data, zeros = case.data(), np.zeros_like(case.bias)
    q = Quadratic.around(case.weight, data.train.moments, bias=zeros)
    assert (
        q.loss(got.codes * got.scale[..., None]).sum()
        < q.loss(nearest(case.weight, case.grid.scale, -7, 7) * case.grid.scale[..., None]).sum()
    )


def test_the_bias_fits_into_int32() -> None:
    """A row that is all bias: without the floor its scale would follow its weights into nothing."""
    case = Case(5, shared=PER_CHANNEL, bits=8)
    case.weight[0, 0] *= 1e-9
    case.bias[0, 0] = 5
    case.grid = replace(case.grid, scale=absmax_scale(case.weight, case.high, PER_CHANNEL))
    got = case.tune(QUICK)
    assert got.bias is not None
    limit = got.scale.astype(np.float64) * SX * LIMIT
    assert np.all(np.abs(got.bias) <= limit * (1 + 2.0**-23))
    assert got.scale[0, 0] > 1000 * case.grid.scale[0, 0]
    kept_scale = case.tune(replace(QUICK, scale_search=False))
    assert kept_scale.bias is not None
    if kept_scale.choice != "raw":
        assert np.all(np.abs(kept_scale.bias) <= case.grid.scale * np.float64(SX) * LIMIT * (1 + 2.0**-23))


def test_gain_decides_whom_a_common_scale_serves() -> None:
    case = Case(6, bits=8, activation=Activation())
    case.weight[0, 0] *= 100
    case.grid = replace(case.grid, scale=absmax_scale(case.weight, case.high, PER_TENSOR))
    gain = np.ones_like(case.bias)
    gain[0, 0] = 0
    weighed, plain = case.tune(QUICK, gain=gain), case.tune(QUICK)
    assert weighed.scale[0, 0] < 0.2 * plain.scale[0, 0]
    assert case.tune(QUICK, gain=0 * gain).choice == case.tune(QUICK).choice


def test_a_layer_with_nothing_to_win_stays_as_it_is() -> None:
    case = Case(7)
    case.grid = WeightGrid(np.full_like(case.bias, 0.25), -64, 64, PER_TENSOR)
    case.weight[:] = np.rint(case.weight * 4) / 4  # on the grid
    case.samples = Samples.of([case.x], [case.x])  # and a float input
    got = case.tune(replace(QUICK, scale_search=False))
    assert got.choice == "raw" and not got.accepted
    np.testing.assert_array_equal(got.bias, case.bias)
    np.testing.assert_array_equal(got.codes, case.weight * 4)


def test_learning_rate_adjusts_to_the_layers_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    true = METHODS["adaround"]
    monkeypatch.setitem(METHODS, "adaround", lambda *given: (seen.append(given[4].learning_rate), true(*given))[1])
    case = Case(8)
    for threshold in (0.0, 1e9):
        case.tune(replace(QUICK, lr_adjust=(threshold, 0.5)))
    assert seen == [0.5, 0.1]


def test_unusable_settings_are_refused() -> None:
    case = Case(9)
    with pytest.raises(ValueError, match="kept positions"):
        case.tune(SETTINGS["adaround, sampled"], case.data(keep=0))
    with pytest.raises(ValueError, match="unknown method"):
        case.tune(replace(QUICK, method="adamround"))


@pytest.mark.parametrize("activation", [Activation(), Relu()])
def test_nothing_kept_is_judged_by_moments(activation: Activation) -> None:
    case = Case(10, activation=activation)
    got = case.tune(QUICK, case.data(keep=0))
    assert got.accepted and got.held_after < got.held_before


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("activation", [Activation(), Relu()])
def test_all_positions_of_all_samples(group: int, activation: Activation) -> None:
    """As many positions as there are: the sums are those of every patch, once."""
    case = Case(11, group=group, outputs=4, activation=activation)
    data = case.data(positions=10**6, keep=10**6)
    at = every_position((8, 8))
    for part, held in ((data.train, False), (data.held, True)):
        assert part is not None and part.kept is not None
        which = np.flatnonzero(case.held == held)
        x = np.concatenate([patches(case.x[i], at, case.shape) for i in which], 1)
        z = np.concatenate([patches(case.codes[i], at, case.shape, ZX) for i in which], 1)
        z = (z.astype(np.float32) - ZX) * np.float32(SX)
        y = x @ np.swapaxes(case.weight, 1, 2) + case.bias[:, None]
        np.testing.assert_array_equal(part.kept.z, z)
        np.testing.assert_allclose(part.kept.y, y, rtol=1e-5, atol=1e-5)
        region = case.layer.active
        if region is None or group == 1:
            np.testing.assert_allclose(part.linear.z1, Moments.of(y, z).zz[:, -1], rtol=1e-5)
            if not held or group == 4:  # what is kept judges, and squares do where they are those of active positions
                np.testing.assert_allclose(part.moments.zz, Moments.of(y, z).zz, rtol=1e-5)
        assert (part.active is None) == (region is None or group == 4)
        if region is not None:
            want = ActiveMeans.of(y, z, region)
            np.testing.assert_allclose(part.fitter.bias(case.weight), want.bias(case.weight), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("activation", [Activation(), Relu()])
def test_without_squares_all_else_is_the_same(group: int, activation: Activation) -> None:
    case = Case(13, group=group, activation=activation, outputs=8)  # several rows in a group
    whole, linear = case.data(), case.data(squares=False)
    for one, other in ((whole.train, linear.train), (whole.held, linear.held)):
        assert one is not None and other is not None and one.kept is not None and other.kept is not None
        np.testing.assert_array_equal(one.kept.z, other.kept.z)
        np.testing.assert_array_equal(one.fitter.bias(case.weight), other.fitter.bias(case.weight))
        assert isinstance(one.sums, Moments) == (one is whole.train)  # what is kept judges
        assert isinstance(other.sums, Sums)
        for a, b in zip(vars(one.linear).values(), vars(other.sums).values(), strict=True):
            np.testing.assert_array_equal(a, b)
        for mean, same in zip(one.sums.means(), other.sums.means(), strict=True):
            np.testing.assert_array_equal(mean, same)
        np.testing.assert_array_equal(one.sums.count, other.sums.count)
    case.x[3, 0, 2, 2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        case.data(positions=10**6, squares=False)
    assert 20 * bytes_of((1, 64, 40000), 20000, 3000, squares=False) < bytes_of((1, 64, 40000), 20000, 3000)


def test_dense_layers_and_dropped_elements() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((1, 3, 5)).astype(np.float32), np.zeros((1, 3), np.float32)
    x = [rng.standard_normal((2, 7, 5)).astype(np.float32) for _ in range(6)]  # batches of two samples of 7 tokens
    z = [v + 1 for v in x]
    samples, layer = Samples.of(x, z), Layer(weight, bias)
    assert len(samples.x) == 12

    def share(ratio: float) -> float:
        data = sample(layer, samples, held_out(12, 0.2, 0), keep=1000, drop_ratio=ratio)
        assert data.train.kept is not None and data.held is not None and data.held.kept is not None
        assert data.train.kept.z.shape[1] + data.held.kept.z.shape[1] == 12 * 7
        plain = sample(layer, samples, held_out(12, 0.2, 0), keep=1000)
        assert plain.train.kept is not None
        return float((data.train.kept.z == plain.train.kept.z).mean())

    assert share(1.0) == 1
    assert 0.3 < share(0.5) < 0.7
    assert share(0.0) < 0.01


@law
@given(st.integers(1, 50), st.floats(0, 1), st.integers(0, 99))
def test_some_samples_are_held_out_but_never_all(count: int, share: float, seed: int) -> None:
    held = held_out(count, share, seed)
    np.testing.assert_array_equal(held, held_out(count, share, seed))
    assert not held.all()
    assert held.any() == (count > 1 and share > 0)
    assert abs(held.sum() - share * count) <= 1


def test_data_that_teaches_nothing_is_refused() -> None:
    case = Case(12)
    with pytest.raises(ValueError, match="no sample"):
        sample(case.layer, case.samples, np.ones(24, bool))
    case.x[3, 0, 2, 2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        case.data(positions=10**6)
    assert bytes_of((1, 512, 4608), 20000, 6000) > 2**29
    assert bytes_of((1, 16, 27), 20000, 6000) < 2**24


def test_results_come_in_order_and_errors_come_through() -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(lambda n: n * n, range(100), pool, ahead=4)) == [n * n for n in range(100)]
        with pytest.raises(ZeroDivisionError):
            list(in_order(lambda n: 1 / n, [2, 1, 0], pool))
    blocks = row_blocks((2, 1000, 100))
    assert [r for block in blocks for r in range(1000)[block]] == list(range(1000))
    assert max(2 * 100 * (b.stop - b.start) for b in blocks) <= BLOCK
