"""Errors of any grid on a distribution against the values themselves, and searches against what they claim to find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from distributions import distributions, formats, normal_numbers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import qparams
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.entropy import entropy, least_divergence
from quark_onnx.numerics.ranges.gaussian import bell, best_clip
from quark_onnx.numerics.ranges.mean_squared_error import min_mse, squared_error
from quark_onnx.numerics.ranges.percentile import best_percentile, percentile

NORMAL = normal_numbers(20_000, 11)
DISTRIBUTIONS = distributions(
    20_000, 11, "gaussian", "laplace", "mostly zero", "swish", "heavy tail", "off centre", "below 0", "outlier"
)
FORMATS = formats(
    "int8", "int8 symmetric", "uint8", "uint8 one-sided", "int16 symmetric", "int4", "int4 symmetric", "int2 symmetric"
)
by_values = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
by_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
law = settings(deadline=None, max_examples=100)
sizes = st.floats(2.0**-20, 2.0**20)
numbers = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**10), 2.0**10, width=32))
grids = st.tuples(st.sampled_from((-8, 0)), st.sampled_from((7, 15, 255, 65535)), st.floats(0, 1), sizes)


def grid_of(drawn: tuple[int, int, float, float]) -> tuple[float, float, float, float]:
    """scale, zero point, lowest and highest code"""
    lo, hi, part, scale = drawn
    return scale, float(round(lo + part * (hi - lo))), lo, hi


def brute(x: np.ndarray, scale: float, zero_point: float, lo: float, hi: float, power: int) -> tuple[float, float]:
    """Sums of error inside and outside of the grid, value by value."""
    x = x.astype(np.float64)
    near = (np.clip(np.rint(x / scale) + zero_point, lo, hi) - zero_point) * scale
    error = np.abs(x - near) ** power
    inside = (x >= (lo - zero_point) * scale) & (x <= (hi - zero_point) * scale)
    return float(error[inside].sum()), float(error[~inside].sum())


@law
@given(numbers, grids, st.floats(-(2.0**10), -(2.0**-10), width=32))
def test_above_a_floor_values_are_as_if_clipped(
    x: np.ndarray, drawn: tuple[int, int, float, float], floor: float
) -> None:
    """Points exactly; of a histogram the extremes, and how many there are below any point above the floor."""
    grid, clipped = grid_of(drawn), np.maximum(x, np.float32(floor))
    wanted, points = Distribution.of_values(clipped), Distribution.of_values(x).above(floor)
    for got, want in zip(points.errors(*grid), wanted.errors(*grid), strict=True):
        assert got == pytest.approx(want, rel=1e-12, abs=1e-12 * float(np.square(clipped, dtype=float).sum()))
    seen = Distribution.of(Statistics.of(x))
    cut = seen.above(floor)
    assert (cut.lo, cut.hi) == (points.lo, points.hi) == (wanted.lo, wanted.hi)
    assert cut.count == x.size
    above = np.linspace(floor / 2, 2.0**10, 9)
    bins = np.searchsorted(seen.low, floor, "right") - 1  # the interval around the floor shrinks to what is above it
    outside = above[above > seen.high[max(bins, 0)]]
    np.testing.assert_allclose(cut.below(outside), seen.below(outside))


@law
@given(numbers, grids)
def test_errors_of_values_are_those_of_every_value(x: np.ndarray, drawn: tuple[int, int, float, float]) -> None:
    grid = grid_of(drawn)
    seen = Distribution.of_values(x)
    for power, got in ((2, seen.errors(*grid)), (1, seen.absolute(*grid))):
        inside, outside = brute(x, *grid, power)
        # prefix sums of x² lose what float64 does not hold of the largest square
        slack = 1e-13 * x.size * float(np.abs(x).max() + grid[0]) ** power
        assert got[0] == pytest.approx(inside, rel=1e-9, abs=slack)
        assert got[1] == pytest.approx(outside, rel=1e-9, abs=slack)


@law
@given(st.floats(-40, 40), st.floats(1e-3, 60), grids)
def test_errors_of_an_interval_are_integrals(begin: float, steps: float, drawn: tuple[int, int, float, float]) -> None:
    """Against the midpoint rule, whose error is a quarter of what the error of a value changes by to the next one."""
    scale, zero_point, lo, hi = grid = grid_of(drawn)
    points = 20_000
    low, high = begin * scale, (begin + steps) * scale
    x = low + (high - low) * (np.arange(points) + 0.5) / points
    seen = Distribution(np.array([low]), np.array([high]), np.array([points]), low, high)
    far = max(scale / 2, high - (hi - zero_point) * scale, (lo - zero_point) * scale - low)
    for power, got in ((2, seen.errors(*grid)), (1, seen.absolute(*grid))):
        inside, outside = brute(x, *grid, power)
        change = (high - low) * (2 * far if power == 2 else 1) / 4
        assert got[0] + got[1] == pytest.approx(inside + outside, abs=change)
        assert got[0] == pytest.approx(inside, abs=change + far**power)  # a point on either side of the grid's end


@by_format
@by_values
def test_errors_of_a_histogram_are_those_of_the_values_within_a_bin(values: np.ndarray, format: Format) -> None:
    """A value is within 2⁻⁷ of where it is taken to be, so e² is wrong by 2·e times that, and by step²/4, at most."""
    x = values.astype(np.float32).astype(np.float64)
    seen = Distribution.of(Statistics.of(x))
    for part in (1.0, 0.5, 0.1):
        q = qparams(part * x.min(), part * x.max(), format)
        grid = float(q.scale), float(q.zero_point), format.lo, format.hi
        rounding, clipping = seen.errors(*grid)
        near = (np.clip(np.rint(x / grid[0]) + grid[1], format.lo, format.hi) - grid[1]) * grid[0]
        error, width = np.abs(x - near), np.abs(x) * 2.0**-7
        inside = error <= grid[0] / 2
        bound = np.where(inside, np.minimum(grid[0] * width, grid[0] ** 2 / 4), 2 * error * width + width**2)
        assert abs(rounding + clipping - np.sum(error**2)) <= np.sum(bound) + 1e-12
        assert rounding + clipping == pytest.approx(np.sum(error**2), rel=0.05)  # most of it cancels


def test_candidates_are_looked_at_as_one_by_one() -> None:
    seen = Distribution.of(Statistics.of(NORMAL))
    scales = np.geomspace(1e-4, 1, 60).reshape(3, 20)
    rounding, clipping = seen.errors(scales, 3, -128, 127)
    assert rounding.shape == clipping.shape == scales.shape
    assert rounding[2, 5] == pytest.approx(float(seen.errors(scales[2, 5], 3, -128, 127)[0]), rel=1e-12)
    assert clipping[1, 7] == pytest.approx(float(seen.errors(scales[1, 7], 3, -128, 127)[1]), rel=1e-12)


@law
@given(numbers)
def test_the_distribution_of_statistics_holds_every_value(x: np.ndarray) -> None:
    seen = Distribution.of(Statistics.of(x))
    assert (seen.lo, seen.hi, seen.count) == (x.min(), x.max(), x.size)
    assert (seen.low <= seen.high).all()
    assert (seen.high[:-1] <= seen.low[1:]).all()
    within = (seen.low[:, None] <= x) & (x <= seen.high[:, None])
    assert (within | (np.abs(x) < 2.0**-133)).any(axis=0).all()
    assert seen.low[0] >= min(x.min(), 0)
    assert seen.high[-1] <= max(x.max(), 0)


@law
@given(numbers, st.floats(0.01, 100), st.integers(1, 50))
def test_linear_bins_are_numpys(x: np.ndarray, width: float, bins: int) -> None:
    start = -width * (bins // 2)
    place = (x.astype(np.float64) - start) / width
    x = x[np.abs(place - np.rint(place)) > 1e-9]  # on an edge it is a matter of rounding
    assume(x.size)
    exact = np.histogram(x.astype(np.float64), bins, (start, start + width * bins))[0]
    np.testing.assert_array_equal(Distribution.of_values(x).linear(start, width, bins), exact)


def test_linear_shares_an_interval_among_its_bins() -> None:
    seen = Distribution(np.array([-1.0, 2.0]), np.array([1.0, 2.0]), np.array([8, 3]), -1.0, 2.0)
    np.testing.assert_allclose(seen.linear(-1.5, 0.5, 8), [0, 2, 2, 2, 2, 0, 0, 3])
    np.testing.assert_allclose(seen.linear(-1.0, 1.0, 3), [4, 4, 3])  # the last bin is closed
    np.testing.assert_allclose(seen.linear(0.0, 0.25, 2), [1, 1])  # what is outside is left out


@by_format
@by_values
def test_least_squares_is_no_worse_than_any_other_cut(values: np.ndarray, format: Format) -> None:
    """Than MinMax: never. Than percentiles and 400 ranges by chance: by 0.5 % at most, which the finest of its grids
    (2^(1/1024) for one end, 2^(1/128) for two) leaves of a sum that is only nearly convex."""
    seen = Distribution.of(Statistics.of(values))
    lo, hi = min_mse(seen, format)
    assert seen.lo <= lo <= max(hi, 0)
    assert hi <= max(seen.hi, 0)
    rng = np.random.default_rng(3)
    part = rng.random((2, 400)) ** rng.choice((0.1, 1, 3), 400)
    cuts = [percentile(seen, p, both) for p in (90, 99, 99.9, 99.99, 99.999) for both in (False, True)]
    low, high = np.concatenate([np.array(cuts).T, part * [[min(seen.lo, 0)], [max(seen.hi, 0)]]], axis=1)
    (best,) = squared_error(seen, format, np.array([lo]), np.array([hi]))
    assert best <= squared_error(seen, format, np.array([seen.lo]), np.array([seen.hi]))[0]
    assert best <= squared_error(seen, format, low, high).min() * 1.005


@law
@given(numbers, st.sampled_from(list(FORMATS.values())))
def test_least_squares_of_few_values_is_never_worse_than_minmax(x: np.ndarray, format: Format) -> None:
    seen = Distribution.of_values(x)
    ends = np.array([(seen.lo, seen.hi), min_mse(seen, format)])
    least, found = squared_error(seen, format, ends[:, 0], ends[:, 1])
    assert found <= least


def divergence(histogram: list[float], keep: int, levels: int) -> float:
    """KL(P ‖ Q) as the definition reads, bin by bin."""
    p, q = histogram[:keep], [0.0] * keep
    p[-1] += sum(histogram[keep:])
    for level in range(levels):
        bins = [b for b in range(keep) if b * levels // keep == level]
        filled = [b for b in bins if p[b] > 0]
        for b in filled:
            q[b] = sum(histogram[b] for b in bins) / len(filled)
    p, q = ([x or 1e-4 for x in side] for side in (p, q))
    return sum(a / sum(p) * math.log(a / sum(p) * sum(q) / b) for a, b in zip(p, q, strict=True))


@law
@given(st.lists(st.integers(0, 30) | st.just(0), min_size=8, max_size=40), st.sampled_from((4, 5, 8)))
def test_divergence_is_least_as_its_definition_has_it(counts: list[int], levels: int) -> None:
    histogram = [float(c) for c in counts]
    assume(any(counts))
    found = least_divergence(np.array(histogram), levels)
    all_of_them = {keep: divergence(histogram, keep, levels) for keep in range(levels, len(counts) + 1)}
    assert all_of_them[found] <= min(all_of_them.values()) + 1e-9
    assert all(all_of_them[keep] > all_of_them[found] - 1e-9 for keep in all_of_them if keep < found)


def test_entropy_is_no_minmax() -> None:
    """onnxruntime's has one candidate with its own defaults; and with ours it takes a Relu's zeros for its shape."""
    seen = Distribution.of(Statistics.of(DISTRIBUTIONS["outlier"]))
    lo, hi = entropy(seen, 2048, 128)
    assert lo == seen.lo
    assert hi < 25
    relu = Distribution.of(Statistics.of(DISTRIBUTIONS["mostly zero"]))
    assert entropy(relu, 2048, 128)[1] > 0.8 * relu.hi
    assert entropy(relu, 128, 128) == (relu.lo, relu.hi)  # as many bins as levels: nothing to choose from


def test_entropy_of_one_sided_values_uses_all_bins() -> None:
    values = np.abs(DISTRIBUTIONS["heavy tail"])
    above, below = (Distribution.of(Statistics.of(sign * values)) for sign in (1, -1))
    lo, hi = entropy(above, 512, 64)
    assert hi < above.hi
    assert entropy(below, 512, 64) == (-hi, -lo)
    width = above.hi / 512
    assert round(hi / width) == pytest.approx(hi / width, abs=1e-9)


def test_best_clip_is_the_papers() -> None:
    for bits, published in zip(range(2, 9), (1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92), strict=True):
        assert best_clip(bits) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("bits", (2, 4, 8, 12, 16))
def test_best_clip_has_the_least_error(bits: int) -> None:
    def error(k: float) -> float:
        tail = math.erfc(k / math.sqrt(2)) / 2
        density = math.exp(-k * k / 2) / math.sqrt(2 * math.pi)
        return 2 * ((1 + k * k) * tail - k * density) + k * k / (3 * 4.0**bits)

    k = best_clip(bits)
    assert error(k) < min(error(k * 0.99), error(k * 1.01))


def test_bell_is_around_the_mean_or_from_zero() -> None:
    values = np.append(NORMAL * 2 + 1, (-90.0, 90.0))
    lo, hi = bell(Distribution.of_values(values), Format())
    assert (lo + hi) / 2 == pytest.approx(values.mean())
    assert hi - lo == pytest.approx(2 * best_clip(8) * values.std())
    relu = np.maximum(np.append(NORMAL, 90.0), 0)
    lo, hi = bell(Distribution.of_values(relu), Format(4))
    assert lo == 0
    assert hi == pytest.approx(best_clip(5) * math.sqrt((relu[relu > 0] ** 2).mean()))


@pytest.mark.parametrize("metric", ("mae", "mse"))
@by_format
@by_values
def test_best_percentile_has_the_least_error(values: np.ndarray, format: Format, metric: str) -> None:
    x = values.astype(np.float32)
    candidates, power = (99.0, 99.9, 99.99, 100.0), 1 if metric == "mae" else 2
    got = best_percentile(Distribution.of_values(x), format, candidates, False, metric)
    errors = {}
    for lo, hi in (percentile(Distribution.of_values(x), percent, False) for percent in candidates):
        q = qparams(lo, hi, format)
        errors[lo, hi] = sum(brute(x, float(q.scale), float(q.zero_point), format.lo, format.hi, power))
    assert errors[got] <= min(errors.values()) * (1 + 1e-9)


def test_the_first_of_equal_percentages_wins() -> None:
    seen = Distribution.of_values(np.array([-1.0, 0.25, 1.0]))
    assert best_percentile(seen, Format(), (100.0, 99.9, 99.0), True, "mae") == (-1.0, 1.0)
    constant = Distribution.of_values(np.full(5, 2.0))
    assert best_percentile(constant, Format(), (50.0, 100.0), False, "mse") == (2.0, 2.0)
