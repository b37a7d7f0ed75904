"""Range methods on a table of distributions, and which data no range is taken from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from distributions import distributions, normal_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import qparams
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.masks_and_infinities import why_unusable
from quark_onnx.numerics.ranges.min_max import minmax
from quark_onnx.numerics.ranges.percentile import percentile

COUNT = 9973  # prime: no rank part · COUNT is a whole number, where the exact percentile would be a matter of taste
BIN = 2.0**-7  # a bin of the histogram, relative to the values in it
TINY = 2.0**-133  # the same among subnormal numbers
PERCENTS = (50.5, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0)

NORMAL = normal_numbers(COUNT, 7)
DISTRIBUTIONS = distributions(
    COUNT, 7, "gaussian", "laplace", "positive", "negative", "relu", "heavier tail", "constant", "negative constant",
    "all zero", "single value", "nothing", "infinities and NaN", "only NaN", "1e-38", "1e38", "integers", "far bimodal",
)  # fmt: skip
METHODS: dict[str, Callable[[Statistics], tuple[float, float]]] = {
    "MinMax": minmax,
    "Percentile, symmetric": lambda s: percentile(s, 99.9, True),
    "Percentile, two-sided": lambda s: percentile(s, 99.9, False),
}
by_distribution = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
by_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
law = settings(deadline=None, max_examples=100)


def finite(values: np.ndarray) -> np.ndarray:
    single = values.astype(np.float32)
    return single[np.isfinite(single)].astype(np.float64)


@by_distribution
@by_method
def test_every_method_gives_a_usable_range(
    values: np.ndarray, method: Callable[[Statistics], tuple[float, float]]
) -> None:
    """Finite, ordered, within the data; as scale and zero point it contains 0."""
    lo, hi = method(Statistics.of(values))
    seen = np.append(finite(values), 0) if np.isnan(values).any() or not values.size else finite(values)
    assert seen.min() <= lo <= hi <= seen.max()
    for format in (Format(), Format(signed=False), Format(symmetric=True), Format(16), Format(16, symmetric=True)):
        q = qparams(lo, hi, format)
        assert 0 < q.scale < np.inf
        low, high = ((code - int(q.zero_point)) * float(q.scale) for code in (format.lo, format.hi))
        slack = float(q.scale) * (0.5 + 2.0**-6)  # half a step: the zero point is a whole number
        assert low <= 0 <= high
        assert low - slack <= lo
        assert hi <= high + slack


@by_distribution
def test_minmax_is_exact(values: np.ndarray) -> None:
    if np.isfinite(values).all() and values.size:
        assert minmax(Statistics.of(values)) == (finite(values).min(), finite(values).max())
    else:
        assert minmax(Statistics.of(values)) == (min(0, *finite(values), 0), max(0, *finite(values), 0))


def assert_within_a_bin(got: float, exact: float) -> None:
    assert abs(got - exact) <= max(BIN * abs(exact), TINY)


@pytest.mark.parametrize("percent", PERCENTS)
@by_distribution
def test_symmetric_percentile_is_numpys_within_a_bin(values: np.ndarray, percent: float) -> None:
    """The exact percentile is the smallest |x| with at least that part of the data below it; ours is in its bin."""
    data = finite(values) if finite(values).size else np.zeros(1)
    lo, hi = percentile(Statistics.of(data), percent, True)
    reach = np.percentile(np.abs(data), percent, method="inverted_cdf")
    assert_within_a_bin(lo, max(data.min(), -reach))
    assert_within_a_bin(hi, min(data.max(), reach))


@pytest.mark.parametrize("percent", PERCENTS)
@by_distribution
def test_two_sided_percentile_is_numpys_within_a_bin(values: np.ndarray, percent: float) -> None:
    data = finite(values) if finite(values).size else np.zeros(1)
    lo, hi = percentile(Statistics.of(data), percent, False)
    tail = (100 - percent) / 2
    exact = np.percentile(data, [tail, 100 - tail], method="inverted_cdf")
    assert_within_a_bin(lo, exact[0])
    assert_within_a_bin(hi, exact[1])


@pytest.mark.parametrize("symmetric", (False, True))
@pytest.mark.parametrize("percent", PERCENTS)
@by_distribution
def test_percentile_of_values_is_numpys(values: np.ndarray, percent: float, symmetric: bool) -> None:
    """Weights are no histogram: their percentiles are values of theirs, exactly."""
    data = finite(values) if finite(values).size else np.zeros(1)
    got = percentile(Distribution.of_values(data), percent, symmetric)
    if symmetric:
        reach = np.percentile(np.abs(data), percent, method="inverted_cdf")
        assert got == (min(max(data.min(), -reach), data.max()), max(min(data.max(), reach), data.min()))
    else:
        tail = (100 - percent) / 2
        assert got == tuple(np.percentile(data, [tail, 100 - tail], method="inverted_cdf"))


@pytest.mark.parametrize(
    ("percent", "symmetric", "lo", "hi"),
    [
        (98, False, -99, 97),  # of −100..99: two cut at either end, of which the second is where the cut is
        (50, False, -51, 49),
        (99, True, -99, 99),
        (50, True, -50, 50),
        (100, True, -100, 99),
    ],
)
def test_percentile_of_known_values(percent: float, symmetric: bool, lo: float, hi: float) -> None:
    assert percentile(Distribution.of_values(np.arange(-100.0, 100.0)), percent, symmetric) == (lo, hi)


floats = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**120), 2.0**120, width=32))
percents = st.floats(50, 100, exclude_min=True)


@law
@given(floats, percents, percents, st.booleans())
def test_percentile_is_monotone_and_never_wider_than_the_data(
    values: np.ndarray, one: float, other: float, symmetric: bool
) -> None:
    s = Statistics.of(values)
    inner, outer = (percentile(s, percent, symmetric) for percent in sorted((one, other)))
    assert values.min() <= outer[0] <= inner[0] <= inner[1] <= outer[1] <= values.max()


@law
@given(floats, st.booleans())
def test_a_hundred_percent_is_everything(values: np.ndarray, symmetric: bool) -> None:
    assert percentile(Statistics.of(values), 100, symmetric) == (values.min(), values.max())


@law
@given(floats, percents)
def test_symmetric_percentile_cuts_both_signs_at_one_threshold(values: np.ndarray, percent: float) -> None:
    there, mirrored = (percentile(Statistics.of(x), percent, True) for x in (values, -values))
    assert there == (-mirrored[1], -mirrored[0])


SCORES = NORMAL * 3  # within ±12
SOFTMAX = np.exp(-np.arange(COUNT) / 100)
UNUSABLE = {
    "-inf": (np.append(SCORES, -np.inf), "1 values seen in calibration are infinite or NaN"),
    "nan": (np.append(SCORES, [np.nan, np.nan]), "2 values seen in calibration are infinite or NaN"),
    "-3.4e38": (np.append(SCORES, -3.4028235e38), "a mask constant would rule the range"),
    "3.4e38": (np.append(SCORES, 3.4028235e38), "a mask constant would rule the range"),
    "nothing": (DISTRIBUTIONS["nothing"], "no value of it was seen"),
    "only -3.4e38": (np.full(4, -3.4028235e38), "a mask constant would rule the range"),
    "-1e4 over ±10": (np.where(NORMAL > 1, -1e4, np.clip(SCORES, -10, 10)), "rounded to zero"),
    "-1e9 over ±10": (np.append(SCORES, -1e9), "rounded to zero"),
}
USABLE = {
    **{name: DISTRIBUTIONS[name] for name in ("gaussian", "laplace", "relu", "constant", "all zero")},
    **{name: DISTRIBUTIONS[name] for name in ("integers", "far bimodal", "heavier tail", "1e-38")},
    "peaked softmax": SOFTMAX,
    "one-hot": np.eye(50),
    "one loud value, 255 times the rest": np.append(np.clip(SCORES, -10, 10), 2550.0),
    "quiet, with a gap": np.append(NORMAL * 1e-4, 900.0),
    "a mask and zeros": np.where(NORMAL > 0, 0.0, -1e4),
    "large throughout": NORMAL * 1e5,
}


@pytest.mark.parametrize(("values", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable(values: np.ndarray, reason: str) -> None:
    assert reason in str(why_unusable(Statistics.of(values), 256))


@pytest.mark.parametrize("values", USABLE.values(), ids=USABLE)
def test_usable(values: np.ndarray) -> None:
    assert why_unusable(Statistics.of(values), 256) is None


def test_a_finer_grid_bears_a_wider_gap() -> None:
    masked = Statistics.of(np.append(np.clip(SCORES, -10, 10), -1e4))
    assert why_unusable(masked, 2**8) is not None
    assert why_unusable(masked, 2**16) is None
