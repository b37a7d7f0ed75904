"""Moments are a monoid, and say of a layer what its positions would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.matrix_products import PRECISE, gram, product
from quark_onnx.numerics.rounding.moments import ActiveMeans, Moments, mask_of, with_bias

EPS = 2.0**-24  # half a step of float32 at 1
law = settings(deadline=None, max_examples=40)

shapes = st.tuples(*(st.integers(1, top) for top in (3, 300, 4, 7)))  # G, n, R, K
seeds = st.integers(0, 2**16)


def slack(y: np.ndarray) -> float:
    """Of a float32 sum over the positions, and of factors that were multiplied by roots of weights before, relative to
    the sum of the magnitudes."""
    return (min(y.shape[1], PRECISE) + 4) * EPS


def draw(shape: tuple[int, int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """y (G, n, R), z (G, n, K) of uneven size and mean, weight, bias."""
    (g, n, r, k), rng = shape, np.random.default_rng(seed)
    z = (rng.standard_normal((g, n, k)) * 10 ** rng.uniform(-2, 2, k) + rng.uniform(-2, 2, k)).astype(np.float32)
    y = (rng.standard_normal((g, n, r)) * 3 + 1).astype(np.float32)
    return y, z, rng.standard_normal((g, r, k)).astype(np.float32), rng.standard_normal((g, r)).astype(np.float32)


def magnitudes(y: np.ndarray, z: np.ndarray) -> Moments:
    return Moments.of(np.abs(y), np.abs(z))


def assert_within(a: Moments, b: Moments, size: Moments, y: np.ndarray) -> None:
    """Equal up to the rounding of float32 products, for each sum relative to its magnitudes."""
    for name in ("yy", "yz", "zz"):
        bound = 2 * slack(y) * getattr(size, name) + 1e-30
        assert np.all(np.abs(getattr(a, name) - getattr(b, name)) <= bound), name


@law
@given(shapes, seeds, st.integers(0, 300))
def test_moments_of_the_whole_are_the_sum_of_the_parts(shape: tuple[int, int, int, int], seed: int, cut: int) -> None:
    y, z, *_ = draw(shape, seed)
    parts = Moments.of(y[:, :cut], z[:, :cut]) + Moments.of(y[:, cut:], z[:, cut:])
    assert_within(parts, Moments.of(y, z), magnitudes(y, z), y)


@law
@given(shapes, seeds)
def test_adding_in_the_same_order_gives_the_same_bits(shape: tuple[int, int, int, int], seed: int) -> None:
    y, z, *_ = draw(shape, seed)
    once, again = Moments.of(y, z), Moments.of(y.copy(), z.copy())
    for name in ("yy", "yz", "zz"):
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
    np.testing.assert_array_equal(once.zz, np.swapaxes(once.zz, 1, 2))


@law
@given(shapes, seeds)
def test_loss_and_gradient_are_those_of_the_positions(shape: tuple[int, int, int, int], seed: int) -> None:
    y, z, weight, bias = draw(shape, seed)
    m, size, v = Moments.of(y, z), magnitudes(y, z), with_bias(weight, bias).astype(np.float64)
    z1 = np.concatenate([z, np.ones((*z.shape[:2], 1))], -1)
    error = y - z1 @ np.swapaxes(v, 1, 2)
    bound = size.loss(-np.abs(v))  # all terms of the loss with the same sign
    assert np.all(np.abs(m.loss(v) - np.square(error).sum(1)) <= slack(y) * bound)
    slope = 2 * (np.abs(v) @ size.zz + size.yz)
    assert np.all(np.abs(m.grad(v) + 2 * np.swapaxes(error, 1, 2) @ z1) <= slack(y) * slope)


@law
@given(shapes, seeds)
def test_the_bias_is_where_the_loss_is_flat(shape: tuple[int, int, int, int], seed: int) -> None:
    y, z, weight, _ = draw(shape, seed)
    m = Moments.of(y, z)
    flat = m.grad(with_bias(weight.astype(np.float64), m.bias(weight)))[..., -1]
    size = 2 * (np.abs(weight) @ np.abs(m.zz[:, :-1, -1:]))[..., 0] + 2 * np.abs(m.yz[..., -1])
    assert np.all(np.abs(flat) <= 1e-13 * (size + m.count))  # float64 throughout
    offset, lever = m.means()
    np.testing.assert_allclose(offset - (weight * lever).sum(-1), m.bias(weight), rtol=0, atol=1e-6 * size.max())


@law
@given(shapes, seeds)
def test_a_weight_is_a_number_of_positions(shape: tuple[int, int, int, int], seed: int) -> None:
    y, z, *_ = draw(shape, seed)
    times = np.random.default_rng(seed).integers(0, 4, y.shape[1])
    weighed = Moments.of(y, z, np.broadcast_to(times.astype(np.float32), y.shape[:2]))
    y, z = np.repeat(y, times, 1), np.repeat(z, times, 1)
    assert_within(weighed, Moments.of(y, z), magnitudes(y, z), y)
    assert np.all(weighed.count == times.sum())


@law
@given(shapes, seeds, st.integers(0, 300))
def test_active_means_are_weighted_means_and_add_up(shape: tuple[int, int, int, int], seed: int, cut: int) -> None:
    y, z, weight, _ = draw(shape, seed)
    region = (0.0, 3.0)
    whole = ActiveMeans.of(y, z, region)
    parts = ActiveMeans.of(y[:, :cut], z[:, :cut], region) + ActiveMeans.of(y[:, cut:], z[:, cut:], region)
    rest = (y - z @ np.swapaxes(weight, 1, 2)).astype(np.float64)
    mask = mask_of(y, region).astype(np.float64)
    size = (mask * (np.abs(y) + np.abs(z) @ np.abs(np.swapaxes(weight, 1, 2)))).sum(1) / mask.sum(1)
    exact = (mask * rest).sum(1) / mask.sum(1)
    for means in (whole, parts):
        assert np.all(np.abs(means.bias(weight) - exact) <= 2 * slack(y) * size)
    offset, lever = whole.means()
    assert np.all(np.abs(offset - (weight * lever).sum(-1) - exact) <= 3 * slack(y) * size)


def test_a_row_that_is_never_active_still_has_a_bias() -> None:
    y, z = np.full((1, 50, 1), -5, np.float32), np.ones((1, 50, 2), np.float32)
    np.testing.assert_allclose(ActiveMeans.of(y, z, (0, 6)).bias(np.ones((1, 1, 2), np.float32)), -7, rtol=1e-6)


def test_finite_says_whether_all_sums_are() -> None:
    y, z = np.ones((1, 4, 1), np.float32), np.ones((1, 4, 2), np.float32)
    assert Moments.of(y, z).finite
    z[0, 1, 1] = np.nan
    assert not Moments.of(y, z).finite


SIZES = [(1, 1, 1), (3, 70, 5), (64, 256, 64), (65, 300, 129), (1, 5000, 40), (40, 5000, 1), (2, 300, 3000)]


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(m: int, k: int, n: int, groups: int, dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((groups, *shape)).astype(dtype) for shape in ((m, k), (k, n)))
    got, exact = product(a, b), a.astype(np.float64) @ b.astype(np.float64)
    assert got.dtype == dtype
    bound = k * np.finfo(dtype).eps * (np.abs(a).astype(np.float64) @ np.abs(b))
    assert np.all(np.abs(got - exact) <= bound)


@pytest.mark.parametrize(("m", "k", "n"), [(3, 7, 5), (65, 300, 129), (30, 2 * PRECISE + 1, 20)])
def test_gram(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, k, size)).astype(np.float32) for size in (m, n))
    exact = np.swapaxes(a, 1, 2).astype(np.float64) @ b
    size = np.swapaxes(np.abs(a), 1, 2).astype(np.float64) @ np.abs(b)
    assert np.all(np.abs(gram(a, b) - exact) <= slack(a) * size)
    out = np.full((2, m + 1, n + 1), np.nan)
    gram(a, b, out[:, :-1, :-1])
    np.testing.assert_array_equal(out[:, :-1, :-1], gram(a, b))
    assert np.isnan(out[:, -1]).all() and np.isnan(out[..., -1]).all()
    square = gram(a, a)
    np.testing.assert_array_equal(square, np.swapaxes(square, 1, 2))
