"""Activation statistics are a commutative monoid, exactly: any split of the data, added in any order, is the whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.numerics.ranges.calibration_statistics import CHUNK, INFINITE, Statistics, Tally, edges

AWKWARD = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e38, -3.4028235e38, 1.0, 255 / 256)
floats = st.one_of(st.sampled_from(AWKWARD), st.floats(width=32), st.integers(-300, 300).map(float))
batches = arrays.arrays(np.float32, st.integers(0, 40), elements=floats.map(lambda x: float(np.float32(x))))
law = settings(deadline=None, max_examples=100)

NOTHING = Statistics.of(np.zeros(0, np.float32))


def assert_equal(a: Statistics, b: Statistics) -> None:
    """Every field; counts also in their length: the trailing empty bins are left out."""
    assert (a.lo, a.hi) == (b.lo, b.hi)
    np.testing.assert_array_equal(a.counts, b.counts)


@law
@given(batches, batches)
def test_statistics_of_the_whole_are_the_sum_of_the_parts(a: np.ndarray, b: np.ndarray) -> None:
    assert_equal(Statistics.of(np.concatenate([a, b])), Statistics.of(a) + Statistics.of(b))


@law
@given(batches, batches, batches)
def test_commutative_and_associative_with_identity(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = map(Statistics.of, (a, b, c))
    assert_equal(x + y, y + x)
    assert_equal((x + y) + z, x + (y + z))
    assert_equal(x + NOTHING, x)
    assert_equal(NOTHING + x, x)


@law
@given(batches, batches)
def test_adding_leaves_both_arguments_alone(a: np.ndarray, b: np.ndarray) -> None:
    data = a.copy()
    x, y = Statistics.of(a), Statistics.of(b)
    before = (x.lo, x.hi, x.counts.copy()), (y.lo, y.hi, y.counts.copy())
    total = x + y + x
    assert total.count == 2 * a.size + b.size
    np.testing.assert_array_equal(a, data)
    for statistics, (lo, hi, counts) in zip((x, y), before, strict=True):
        assert_equal(statistics, Statistics(lo, hi, counts))


@law
@given(batches, st.lists(st.integers(0, 40), max_size=6))
def test_any_split_into_batches(values: np.ndarray, cuts: list[int]) -> None:
    parts = np.split(values, sorted(min(cut, values.size) for cut in cuts))
    assert_equal(reduce(Statistics.__add__, map(Statistics.of, parts)), Statistics.of(values))


@law
@given(st.lists(batches, max_size=5), st.randoms())
def test_a_tally_is_the_sum_of_what_was_added(parts: list[np.ndarray], random: Random) -> None:
    total = reduce(Statistics.__add__, map(Statistics.of, parts), NOTHING)
    tally, shuffled = Tally(), random.sample(parts, len(parts))
    ends = [tally.add(part) for part in shuffled]
    assert [pair is None for pair in ends] == [not part.size for part in shuffled]
    assert [pair for pair in ends if pair] == [(s.lo, s.hi) for s in map(Statistics.of, shuffled) if s.count]
    assert_equal(tally.statistics(total.lo, total.hi), total)


def test_counts_are_those_of_bincount_also_over_several_chunks() -> None:
    values = np.random.default_rng(1).standard_normal(3 * CHUNK + 5, np.float32)
    expected = np.bincount(values.view(np.uint32) >> 16)
    assert_equal(Statistics.of(values), Statistics(float(values.min()), float(values.max()), expected))


def test_threads_may_add_to_one_tally() -> None:
    parts = np.random.default_rng(2).standard_normal((64, CHUNK // 2), np.float32)
    tally = Tally()
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(tally.add, parts))
    whole = Statistics.of(parts)
    assert_equal(tally.statistics(whole.lo, whole.hi), whole)


@law
@given(batches)
def test_every_value_is_counted_once(values: np.ndarray) -> None:
    s = Statistics.of(values)
    finite = values[np.isfinite(values)]
    assert s.count == values.size
    assert s.nonfinite == values.size - finite.size
    assert s.negative.sum() == np.signbit(finite).sum()
    assert s.positive.sum() == (~np.signbit(finite)).sum()


@law
@given(batches)
def test_lo_and_hi_are_the_extremes(values: np.ndarray) -> None:
    s = Statistics.of(values)
    finite = values[np.isfinite(values)]
    seen = finite if finite.size == values.size > 0 else np.append(finite, 0)
    assert (s.lo, s.hi) == (seen.min(), seen.max())


@law
@given(st.floats(0, 2.0**127, width=32))
def test_bins_hold_what_their_edges_say_and_are_one_128th_wide(magnitude: float) -> None:
    (k,) = np.flatnonzero(Statistics.of(np.array([magnitude], np.float32)).positive)
    lower, upper = edges(np.array([k, k + 1]))
    assert lower <= magnitude < upper
    assert upper - lower <= max(lower / 128, 2.0**-133)


def test_the_last_finite_bin_ends_at_infinity() -> None:
    (k,) = np.flatnonzero(Statistics.of(np.array([np.finfo(np.float32).max])).positive)
    assert k == INFINITE - 1
    assert edges(INFINITE) == np.inf


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0, 3)])
def test_any_shape_and_layout(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal((*shape[::-1], 2), np.float32)
    assert_equal(Statistics.of(array.T), Statistics.of(array.reshape(-1)))
    assert_equal(Statistics.of(array[..., 0]), Statistics.of(array[..., 0].copy()))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_count_as_float32(dtype: type[np.floating]) -> None:
    values = np.array([1.0, -2.5, 65504.0], dtype)
    assert_equal(Statistics.of(values), Statistics.of(values.astype(np.float32)))


def test_float64_beyond_float32_counts_as_infinite() -> None:
    s = Statistics.of(np.array([1e300, -1e300, 2.0]))
    assert (s.count, s.nonfinite, s.lo, s.hi) == (3, 2, 0.0, 2.0)
