"""Factors of SmoothQuant: the formula, what they share, and that an error is one of other rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.smoothing import SPREAD, Part, Weight, crossed_errors, smoothing_factors

law = settings(deadline=None, max_examples=50)
sizes = arrays(np.float32, 6, elements=st.floats(0, 100, width=32))
APART = np.arange(6)
X, PER_COLUMN = Format(), Format(symmetric=True, axis=1)


def weight(columns: np.ndarray, format: Format = PER_COLUMN) -> Weight:
    return Weight(columns, columns.min(1), columns.max(1), format)


def of_rows(top: np.ndarray) -> Weight:
    """A weight of one column with these magnitudes."""
    return weight(-top[:, None].astype(np.float32))


def part(rows: np.ndarray) -> Part:
    return Part(rows.astype(np.float32), rows.min(0).astype(np.float32), rows.max(0).astype(np.float32))


@law
@given(sizes, sizes, st.floats(0.05, 1))
def test_the_formula_up_to_what_all_share(top: np.ndarray, rows: np.ndarray, alpha: float) -> None:
    s = smoothing_factors(top, [of_rows(rows)], alpha, APART)
    lives = (top > 0) & (rows > 0)
    assert s.dtype == np.float32
    assert ((s >= np.float32(1 / SPREAD)) & (s <= np.float32(SPREAD))).all()
    assert (s[~lives] == 1).all()
    loud = np.maximum(top[lives], np.median(top[lives].astype(np.float64)) if lives.any() else 0)
    wanted = alpha * np.log(loud, dtype=np.float64) - (1 - alpha) * np.log(rows[lives], dtype=np.float64)
    wanted -= wanted.mean() if lives.any() else 0
    limit = np.log(SPREAD)
    # one rounding of float32 each
    np.testing.assert_allclose(np.log(s[lives], dtype=np.float64), np.clip(wanted, -limit, limit), atol=1e-6)


@law
@given(sizes, sizes)
def test_all_of_the_range_moves_where_alpha_is_one(top: np.ndarray, rows: np.ndarray) -> None:
    """But for channels below the median, which keep their size beside it."""
    top, rows = top.astype(np.float64) + 1, rows + 1
    smoothed = top / smoothing_factors(top, [of_rows(rows)], 1.0, APART)
    np.testing.assert_allclose(smoothed / smoothed.max(), np.minimum(top / np.median(top), 1), rtol=1e-5)


def test_a_quiet_channel_is_not_stretched_to_the_whole_range() -> None:
    """One that other samples wake goes beyond the range as little as any other."""
    top = np.array([0.01, 1, 2, 4, 8, 16])
    s = smoothing_factors(top, [of_rows(np.ones(6))], 0.8, APART)
    assert s[0] == s[1] == s[2] < s[3] < s[4] < s[5]


@law
@given(sizes, sizes)
def test_channels_with_one_label_have_one_factor(top: np.ndarray, rows: np.ndarray) -> None:
    s = smoothing_factors(top, [of_rows(rows)], 0.5, np.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_array_equal(s[:3], s[3:])


def test_the_largest_row_of_all_weights_counts() -> None:
    top, small, large = np.ones(6), np.linspace(0.1, 1, 6), np.linspace(1, 2, 6)
    both = smoothing_factors(top, [of_rows(small), of_rows(large)], 0.5, APART)
    np.testing.assert_array_equal(both, smoothing_factors(top, [of_rows(large)], 0.5, APART))


def uneven(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 6)) * np.array([1, 1, 1, 1, 1, 60.0])


@pytest.mark.parametrize(
    "format",
    [PER_COLUMN, Format(symmetric=True), Format(symmetric=True, axis=0, block=2)],
    ids=["per column", "per tensor", "blocks"],
)
def test_one_large_channel_costs_less_when_it_is_smoothed(format: Format) -> None:
    w = weight(np.random.default_rng(5).standard_normal((6, 40)).astype(np.float32) * np.float32(0.1), format)
    parts = [part(uneven(200, seed)) for seed in range(4)]
    plain, smooth = crossed_errors(parts, [w], X, APART, (0.0, 0.7))
    assert smooth < plain
    # the noise is that of a grid of 255 steps over the largest channel, spread over the five small ones
    assert smooth > 1e-6


def test_a_column_that_is_written_strongly_does_not_outvote_the_others() -> None:
    """It reads the large channel alone, which has 255 steps; the others have two or three, wherever they go."""
    columns = np.eye(6, dtype=np.float32) * np.float32([1, 1, 1, 1, 1, 1000])
    parts = [part(uneven(200, seed)) for seed in range(2)]
    plain, smooth = crossed_errors(parts, [weight(columns)], X, APART, (0.0, 0.9))
    assert plain > 0.05 and smooth < 0.01


def test_rows_of_the_part_that_gave_the_range_do_not_judge() -> None:
    """What goes beyond the range in the other part alone is clipped there: the errors of both parts are averaged."""
    w = weight(np.ones((6, 2), np.float32))
    narrow, wide = part(uneven(50, 1) / 60), part(uneven(50, 2))
    (crossed,) = crossed_errors([narrow, wide], [w], X, APART, (0.0,))
    own = np.mean([crossed_errors([one, one], [w], X, APART, (0.0,)) for one in (narrow, wide)])
    assert crossed > 100 * own


def test_one_part_is_judged_by_what_all_others_teach() -> None:
    """Two that hold the same, and one that is narrow: what only the wide ones hold is known to each."""
    w = weight(np.ones((6, 2), np.float32))
    wide, narrow = part(uneven(50, 2)), part(uneven(50, 1) / 3)
    (known,) = crossed_errors([wide, wide, narrow], [w], X, APART, (0.0,))
    (unknown,) = crossed_errors([wide, narrow, narrow], [w], X, APART, (0.0,))
    assert unknown > 100 * known


def test_nothing_is_lost_where_there_is_no_signal() -> None:
    rows = part(np.zeros((4, 6)))
    assert crossed_errors([rows, rows], [weight(np.ones((6, 2), np.float32))], X, APART, (0.5,)) == [0]
