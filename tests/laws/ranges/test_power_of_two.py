"""Power-of-two scales: the literal search over five positions on the values themselves, and what holds for any data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from distributions import distributions, formats, normal_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.power_of_two import min_mse

COUNT = 2003
NORMAL = normal_numbers(COUNT, 17)
DISTRIBUTIONS = distributions(
    COUNT, 17, "gaussian", "laplace", "relu", "uniform", "heavy tail", "outlier", "bimodal", "negative", "1e-30", "1e30"
)
DISTRIBUTIONS = {name: values.astype(np.float32) for name, values in DISTRIBUTIONS.items()}
FORMATS = formats(
    "int8 symmetric", "int8 symmetric, not strict", "uint8 symmetric", "uint8 one-sided", "int8", "int4 symmetric",
    "int16 symmetric",
)  # fmt: skip
FORMATS = {name: replace(format, scale="pow2") for name, format in FORMATS.items()}
by_distribution = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
by_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
floats = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def literal(values: np.ndarray, format: Format) -> tuple[float, int, dict[float, float]]:
    """Quark's search on the values: scale, zero point, and the squared error of each of the five scales."""
    lo, hi = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    steps = format.hi - format.lo
    scale, zero_point = (hi - lo) / steps, None
    if format.symmetric and not (format.one_sided and lo == 0):
        scale, zero_point = 2 * max(-lo, hi) / steps, format.middle
    zero_point = round(format.lo - lo / scale) if zero_point is None else zero_point
    position = round(-math.log2(scale))
    errors = {}
    for shift in range(-1, 4):
        tried = 2.0 ** -(position + shift)
        codes = np.clip(np.rint(values.astype(np.float64) / tried) + zero_point, format.lo, format.hi)
        errors[tried] = float(np.sum(((codes - zero_point) * tried - values) ** 2))
    return min(errors, key=errors.__getitem__), zero_point, errors


@by_format
@by_distribution
def test_the_literal_search(values: np.ndarray, format: Format) -> None:
    scale, zero_point, errors = literal(values, format)
    q = qparams(*min_mse(Distribution.of_values(values), format), format)
    assert (float(q.scale), int(q.zero_point)) == (scale, zero_point)
    assert sorted(errors.values())[1] > errors[scale], "a tie would make this test a matter of taste"


@by_format
@by_distribution
def test_from_a_histogram(values: np.ndarray, format: Format) -> None:
    """The scale is that of the values, or another one of hardly more error."""
    scale, _, errors = literal(values, format)
    q = qparams(*min_mse(Distribution.of(Statistics.of(values)), format), format)
    assert errors[float(q.scale)] <= 1.05 * errors[scale]


def test_an_outlier_is_clipped() -> None:
    """Not so with NonOverflow, which takes the next power of two above min-max."""
    values = np.append(np.tile(NORMAL, 200), 60).astype(np.float32)
    format = FORMATS["int4 symmetric"]
    covering = qparams(values.min(), values.max(), format)
    found = qparams(*min_mse(Distribution.of_values(values), format), format)
    assert float(found.scale) <= float(covering.scale) / 8
    less, more = (
        np.square(dequantize(quantize(values, q, format), q, format) - values).sum() for q in (found, covering)
    )
    assert less < more / 2


@settings(deadline=None, max_examples=100)
@given(floats, st.sampled_from(sorted(FORMATS)))
def test_a_power_of_two_near_min_max(values: np.ndarray, name: str) -> None:
    """From twice to an eighth of the nearest one; the zero point is the format's, or that of min-max."""
    format = FORMATS[name]
    lo, hi = min_mse(Distribution.of_values(values), format)
    q, exact = (
        qparams(*ends, replace(format, scale=kind)) for ends, kind in (((lo, hi), "pow2"), (minmax(values), "float"))
    )
    mantissa, _ = np.frexp(float(q.scale))
    assert lo <= 0 <= hi
    if lo == hi == 0:
        assert not values.any()
        return
    assert mantissa == 0.5
    if float(exact.scale) > 2.0**-100:
        assert 2**-3.51 <= float(q.scale / exact.scale) <= 2**1.51 * 16 / 15  # int4: 2·|x|/15 for what −8 takes alone
        assert abs(int(q.zero_point) - int(exact.zero_point)) <= (0 if format.symmetric else 1)


def minmax(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


@by_format
def test_equal_errors_take_the_largest_scale(format: Format) -> None:
    """An even number of steps is exact with two scales: as it is, and halved."""
    above = format.hi - (format.lo if format.one_sided else format.middle)
    value = 2 * round(0.4 * above)
    values = np.array([0 if format.one_sided else -value, 0, value], np.float32)
    scale, zero_point, errors = literal(values, format)
    assert sum(error == errors[scale] for error in errors.values()) > 1
    q = qparams(*min_mse(Distribution.of_values(values), format), format)
    assert float(q.scale) == max(s for s, error in errors.items() if error == errors[scale])
    assert int(q.zero_point) == zero_point


@by_format
@pytest.mark.parametrize("values", ([], [0.0], [0.0, -0.0], [np.nan, np.inf]), ids=str)
def test_nothing_but_zeros(values: list[float], format: Format) -> None:
    q = qparams(*min_mse(Distribution.of_values(np.array(values)), format), format)
    assert float(q.scale) == 1


@by_format
@by_distribution
def test_how_the_data_are_split_does_not_matter(values: np.ndarray, format: Format) -> None:
    one, two, three = (Statistics.of(part) for part in np.array_split(values[::-1], 3))
    assert min_mse(Distribution.of(two + (three + one)), format) == min_mse(
        Distribution.of(Statistics.of(values)), format
    )
