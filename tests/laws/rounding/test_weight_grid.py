"""Codes, scales and coordinate descent on the weight grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import absmax_scale

from quark_onnx.numerics.rounding.coordinate_descent import descend
from quark_onnx.numerics.rounding.moments import Moments
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.scale_search import search_scale
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, PER_ROW, PER_TENSOR, nearest, up_or_down

law = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**16)
SHARED = {"channel": PER_CHANNEL, "tensor": PER_TENSOR, "row": PER_ROW}
by_granularity = pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)


def problem(seed: int, g: int = 2, r: int = 3, k: int = 9) -> tuple[np.ndarray, Quadratic]:
    """A weight and its objective on correlated inputs."""
    rng = np.random.default_rng(seed)
    z = np.maximum(rng.standard_normal((g, 40 * k, k)) @ rng.standard_normal((k, k)) + 0.5, 0).astype(np.float32)
    weight = rng.standard_normal((g, r, k)).astype(np.float32)
    return weight, Quadratic.around(weight, Moments.of(z @ np.swapaxes(weight, 1, 2), z))


@law
@given(seeds, st.integers(-8, 0), st.integers(0, 7))
def test_nearest_is_the_nearest_code_within_the_bounds(seed: int, low: int, high: int) -> None:
    weight, _ = problem(seed)
    scale = np.full(weight.shape[:2], 0.2, np.float32)
    codes = nearest(weight, scale, low, high)
    assert codes.dtype == np.float32
    assert codes.min() >= low and codes.max() <= high
    all_codes = np.arange(low, high + 1, dtype=np.float32)
    best = np.abs(weight[..., None] / np.float32(0.2) - all_codes).min(-1)
    np.testing.assert_allclose(np.abs(weight / np.float32(0.2) - codes), best, atol=1e-5)


def test_bounds_per_row() -> None:
    weight, _ = problem(0)
    low, high = np.full((2, 3, 1), -2, np.float32), np.full((2, 3, 1), 3, np.float32)
    low[1, 2], high[0, 1] = -5, 0
    codes = nearest(weight * 100, np.ones((2, 3), np.float32), low, high)
    assert np.all((codes >= low) & (codes <= high))
    assert codes[1, 2].min() == -5 and codes[0, 1].max() == 0
    for bound in up_or_down(weight * 100, np.ones((2, 3), np.float32), low, high):
        assert np.all((bound >= low) & (bound <= high))


@law
@given(seeds, st.sampled_from([5, 31, 32, 33, 70]), st.integers(1, 4))
def test_descent_never_rises_and_stays_within_its_bounds(seed: int, k: int, sweeps: int) -> None:
    weight, q = problem(seed, k=k)
    scale = absmax_scale(weight, 3, PER_CHANNEL)
    start, bounds = nearest(weight, scale, -3, 3), up_or_down(weight, scale, -3, 3)
    codes = descend(start, *bounds, scale, q, sweeps)
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert np.all((codes >= bounds[0]) & (codes <= bounds[1]))
    before, after = (q.loss(c * scale[..., None]) for c in (start, codes))
    assert np.all(after <= before + 4 * k * 2.0**-24 * (before + np.abs(before)))


@law
@given(seeds, st.sampled_from([5, 40]))
def test_descent_ends_where_no_single_code_can_do_better(seed: int, k: int) -> None:
    weight, q = problem(seed, k=k)
    scale = absmax_scale(weight, 3, PER_CHANNEL)
    codes = descend(nearest(weight, scale, -3, 3), -3, 3, scale, q, sweeps=100)
    best = q.loss(codes * scale[..., None])
    for column in range(k):
        for step in (-1, 1):
            other = codes.copy()
            other[..., column] = np.clip(other[..., column] + step, -3, 3)
            assert np.all(q.loss(other * scale[..., None]) >= best * (1 - 1e-4))


@by_granularity
@pytest.mark.parametrize("descends", [False, True])
def test_searched_scale_is_the_best_of_its_candidates(shared: tuple[int, ...], descends: bool) -> None:
    weight, q = problem(1, k=20)
    weight[..., 0] *= 8  # one large weight: the others want a finer grid than it does
    top, factors = absmax_scale(weight, 3, shared), (1.0, 0.6, 0.3, 0.1)
    gain = np.array([[1, 2, 3], [4, 0, 1]], np.float32)
    scale = search_scale(
        weight, q.loss, -3, 3, top, shared, factors=factors, descends=q if descends else None, gain=gain
    )

    def loss(s: np.ndarray) -> np.ndarray:
        codes = nearest(weight, s, -3, 3)
        codes = descend(codes, *up_or_down(weight, s, -3, 3), s, q, 1) if descends else codes
        each = gain * q.loss(codes * s[..., None])
        return each.sum(shared, keepdims=True) if shared else each

    losses = np.stack([loss(top * np.float32(f)) for f in factors])
    assert np.all(loss(scale) <= losses.min(0) * (1 + 1e-4))
    assert np.any(scale < top)
    if shared:
        np.testing.assert_array_equal(scale, np.broadcast_to(scale.max(shared, keepdims=True), scale.shape))


def test_a_row_without_gain_does_not_rule_the_scale() -> None:
    weight, q = problem(2)
    weight[0, 0] *= 50
    q = Quadratic(weight, q.hessian, 0 * q.residual, q.floor)
    top = absmax_scale(weight, 7, PER_TENSOR)
    gain = np.ones((2, 3), np.float32)
    gain[0, 0] = 0
    weighed, plain = (
        search_scale(weight, q.loss, -7, 7, top, PER_TENSOR, descends=q, gain=g)[0, 0] for g in (gain, None)
    )
    assert weighed < plain / 5


def test_no_scale_falls_below_the_floor() -> None:
    weight, q = problem(3)
    top = absmax_scale(weight, 7, PER_CHANNEL)
    floor = top * np.float32(0.95)
    assert np.all(search_scale(weight, q.loss, -7, 7, top, PER_CHANNEL, floor=floor) >= floor)


def test_many_candidates_are_descended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, q = problem(4, k=40)
    top = absmax_scale(weight, 3, PER_CHANNEL)
    whole = search_scale(weight, q.loss, -3, np.full((2, 3, 1), 3, np.float32), top, PER_CHANNEL, descends=q)
    monkeypatch.setattr("quark_onnx.numerics.rounding.scale_search.BUDGET", 3 * weight.size)
    np.testing.assert_array_equal(search_scale(weight, q.loss, -3, 3, top, PER_CHANNEL, descends=q), whole)
