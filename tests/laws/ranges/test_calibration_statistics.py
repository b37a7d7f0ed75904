"""Activation statistics are a commutative monoid, exactly: any split of the data, added in any order, is the whole."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.numerics.ranges.calibration_statistics import (
    INFINITE,
    WAITING,
    Bins,
    Statistics,
    Tally,
    edges,
)
from quark_onnx.numerics.ranges.octave_counts import BINS, CHUNK

AWKWARD = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e38, -3.4028235e38, 1.0, 255 / 256)
floats = st.one_of(st.sampled_from(AWKWARD), st.floats(width=32), st.integers(-300, 300).map(float))
batches = arrays.arrays(np.float32, st.integers(0, 40), elements=floats.map(lambda x: float(np.float32(x))))
law = settings(deadline=None, max_examples=100)

NOTHING = Statistics.of(np.zeros(0, np.float32))


def assert_equal(a: Statistics, b: Statistics) -> None:
    """Every field: only bins that hold something are there."""
    assert (a.lo, a.hi) == (b.lo, b.hi)
    for one, other in zip(a.bins, b.bins, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert a.bins.counts.all()


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
    before = [(s.lo, s.hi, Bins(s.bins.filled.copy(), s.bins.counts.copy())) for s in (x, y)]
    total = x + y + x
    assert total.count == 2 * a.size + b.size
    np.testing.assert_array_equal(a, data)
    for statistics, (lo, hi, bins) in zip((x, y), before, strict=True):
        assert_equal(statistics, Statistics(lo, hi, bins))


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
    expected = Bins.of(np.bincount(values.view(np.uint32) >> 16))
    assert_equal(Statistics.of(values), Statistics(float(values.min()), float(values.max()), expected))


@pytest.mark.parametrize("size", [7, WAITING - 1, WAITING, CHUNK])
def test_threads_may_add_to_one_tally(size: int) -> None:
    parts = np.random.default_rng(2).standard_normal((64, size), np.float32)
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
    assert s.negative.counts.sum() == np.signbit(finite).sum()
    assert s.positive.counts.sum() == (~np.signbit(finite)).sum()


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
    ((k,), _) = Statistics.of(np.array([magnitude], np.float32)).positive
    lower, upper = edges(np.array([k, k + 1]))
    assert lower <= magnitude < upper
    assert upper - lower <= max(lower / 128, 2.0**-133)


def test_the_last_finite_bin_ends_at_infinity() -> None:
    ((k,), _) = Statistics.of(np.array([np.finfo(np.float32).max])).positive
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


def test_counts_beyond_32_bits_are_kept() -> None:
    """Values of 2³¹ and more samples: no bin overflows, and the rest is in 4 bytes as before."""
    dense = np.zeros(BINS, np.int64)
    dense[[0, 5, BINS - 1]] = 3, 1 << 31, 1
    half = Statistics(0.0, 1.0, Bins.of(dense))
    assert half.bins.counts.dtype == np.uint32
    whole = half + half
    assert whole.bins.counts.tolist() == [6, 1 << 32, 2]
    assert whole.count == 8 + (1 << 32)
    assert (whole + half).bins.counts.tolist() == [9, 3 << 31, 3]


def held(tensors: list[np.ndarray], times: int) -> float:
    """Bytes per tensor that tallies take while they count, and then as statistics."""
    tracemalloc.start()
    tallies = [Tally() for _ in tensors]
    for _ in range(times):
        for tally, values in zip(tallies, tensors, strict=True):
            tally.add(values)
    counting, _ = tracemalloc.get_traced_memory()
    found = [tally.statistics(-9.0, 9.0) for tally in tallies]
    tallies.clear()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(s.positive.counts.sum() + s.negative.counts.sum() == s.count for s in found)
    return max(counting, kept) / len(tensors)


NORMAL = np.random.default_rng(3).standard_normal(1 << 20, np.float32)


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (NORMAL, 2),  # 14 octaves of either sign and more
        (np.maximum(NORMAL, 0), 2),
        (np.exp(8 * NORMAL[: 1 << 18]), 2),  # as in front of a softmax: some 50 octaves
        (NORMAL[:64], 300),
        (NORMAL[: WAITING - 1], 3),
    ],
)
def test_a_tensor_takes_less_than_a_tenth_of_a_megabyte(values: np.ndarray, times: int) -> None:
    assert held([values] * 4, times) < 1e5
