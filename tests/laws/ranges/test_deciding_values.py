"""Where the largest values decide, leaving the others uncounted changes no range: to the bit, or it is noticed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.ranges.calibration_statistics import FIRST, INFINITE, Statistics, Tally
from quark_onnx.numerics.ranges.deciding_values import MOST, deciding_from, settled
from quark_onnx.numerics.ranges.masks_and_infinities import LOUD, why_unusable
from quark_onnx.numerics.ranges.percentile import percentile

PERCENTS = (1.0, 50.0, 98.0, 99.0, 99.9, 99.99, 99.9999, 100.0)

shapes = {
    "signed": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "clipped": lambda x: np.clip(x, 0, 1.5),
    "shifted": lambda x: x + 5,
    "negative": lambda x: -np.abs(x) - 0.5,
    "heavy tails": lambda x: x**3,
    "few": lambda x: np.rint(x),
}
draws = st.tuples(st.sampled_from(sorted(shapes)), st.floats(0.01, 20), st.sampled_from((1, 999, 20_000, FIRST)))
cases = st.tuples(st.integers(0, 9), st.sampled_from(sorted(shapes)), st.lists(draws, max_size=6))


def values_of(seed: int, first: str, later: list[tuple[str, float, int]]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    parts = [shapes[first](random.standard_normal(FIRST))]
    parts += [shapes[shape](factor * random.standard_normal(size)) for shape, factor, size in later]
    return [part.astype(np.float32) for part in parts]


def tallied(parts: list[np.ndarray], percent: float) -> Statistics:
    tally = Tally(partial(deciding_from, percent=percent))
    ends = [pair for part in parts if (pair := tally.add(part)) is not None]
    return tally.statistics(min(lo for lo, _ in ends), max(hi for _, hi in ends))


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from(PERCENTS))
def test_a_settled_percentile_is_that_of_all_values(case: tuple, percent: float) -> None:
    parts = values_of(*case)
    found, whole = tallied(parts, percent), Statistics.of(np.concatenate(parts))
    assert (found.lo, found.hi, found.count) == (whole.lo, whole.hi, whole.count)
    assume(settled(found, percent))
    assert percentile(found, percent, True) == percentile(whole, percent, True)
    assert why_unusable(found, 256) == why_unusable(whole, 256)


@settings(deadline=None, max_examples=30)
@given(cases, st.sampled_from(PERCENTS))
def test_bins_from_the_told_magnitude_on_lack_nothing(case: tuple, percent: float) -> None:
    parts = values_of(*case)
    found, whole = tallied(parts, percent), Statistics.of(np.concatenate(parts))
    for side in ("positive", "negative"):
        first = int(np.float32(found.told).view(np.uint32)) >> 16
        one, other = (getattr(s, side).between(max(first, 1), INFINITE) for s in (found, whole))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", ["signed", "relu", "clipped", "shifted", "negative", "heavy tails"])
def test_data_that_stay_alike_are_settled_by_few_values(shape: str) -> None:
    found = tallied(values_of(3, shape, [(shape, 1.0, FIRST)] * 5), 99.9999)
    assert settled(found, 99.9999)
    assert found.told > 0
    zeros = found.bins.counts[found.bins.filled == 0]
    assert zeros > 5 * FIRST * (1 - MOST)  # and what counts so


def test_first_values_louder_than_all_others_leave_a_percentile_unsettled() -> None:
    """The other 64 times as many are smaller than any bin that is told: the percentile of 99.9 is among them."""
    loud = np.random.default_rng(0).standard_normal(FIRST, np.float32)
    quiet = loud / 1000
    found = tallied([loud] + [quiet] * 70, 99.9)
    assert not settled(found, 99.9)
    assert settled(tallied([quiet] * 71, 99.9), 99.9)
    assert settled(found, 100.0)


@pytest.mark.parametrize("late", [LOUD, -LOUD, 1e5, -1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("spread", [1.0, 200.0])
def test_why_a_tensor_is_unusable_is_told_as_from_all_values(late: float, spread: float) -> None:
    """Loud values above a gap, and below it none that were told; values of all sizes in between; infinite ones."""
    values = np.random.default_rng(0).standard_normal(2 * FIRST, np.float32) * np.float32(spread)
    for parts in ([values, values, np.full(3, late, np.float32)], [np.append(values, np.float32(late)), values]):
        found, whole = tallied(parts, 99.9999), Statistics.of(np.concatenate(parts))
        assert settled(found, 99.9999)
        assert 0 < found.told < LOUD
        for levels in (4, 256, 1 << 16):
            assert why_unusable(found, levels) == why_unusable(whole, levels)
    assert (why_unusable(whole, 4) is None) == (abs(late) == LOUD and spread > 1)


def test_where_those_that_would_be_told_are_loud_themselves_all_are_counted() -> None:
    """The gap below the masked values would be one below all that are told."""
    values = np.random.default_rng(0).standard_normal(2 * FIRST, np.float32)
    masked = np.where(np.arange(values.size) % 20 == 0, np.float32(-1e4), values)
    assert tallied([masked, masked], 99.9999).told == 0
    assert tallied([masked / 100, masked], 99.9999).told == 100


def test_where_most_values_are_as_large_all_are_counted() -> None:
    """Behind a clip that half of the values reach, telling them apart costs more than counting."""
    half = np.tile(np.array([1.5, 0.25], np.float32), FIRST)
    assert tallied([half, half], 99.9999).told == 0
    fewer = np.tile(np.array([1.5, 0.25, 0.25, 0.25, 0.25], np.float32), FIRST)
    assert tallied([fewer, fewer], 99.9999).told == 1.5


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_values_at_the_told_magnitude_are_told(signs: tuple[int, int]) -> None:
    values = np.tile(np.array([1.5, 1.5, *[0.25] * 8], np.float32) * np.resize(signs, 10), FIRST // 5)
    found, whole = tallied([values, values], 99.9999), Statistics.of(np.concatenate([values, values]))
    assert found.told == 1.5
    for side in ("positive", "negative"):
        ones = [getattr(s, side).between(0x3FC0, INFINITE).counts.sum() for s in (found, whole)]
        assert ones[0] == ones[1] == 2 * np.sum(values == (1.5 if side == "positive" else -1.5))


def test_sums_lack_what_either_lacks() -> None:
    parts = values_of(1, "signed", [("signed", 1.0, FIRST)])
    found, whole = tallied(parts, 99.9999), Statistics.of(parts[0])
    assert (found + whole).told == (whole + found).told == found.told > 0
    assert whole.told == (whole + whole).told == 0
