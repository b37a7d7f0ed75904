"""Every range method × every distribution × formats: a usable range, and the same one however the data are split."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from distributions import distributions, formats, normal_numbers

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.settings.range_methods import CUTS_BOTH_ENDS, METHODS, Ranging
from quark_onnx.numerics.quantizer import qparams
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.methods import TABLE, find_range

COUNT = 2003
NORMAL = normal_numbers(COUNT, 5)
DISTRIBUTIONS = distributions(
    COUNT, 5, "gaussian", "laplace", "relu", "positive", "negative", "cauchy", "heavy tail", "constant",
    "negative constant", "all zero", "single value", "nothing", "infinities and NaN", "only NaN", "1e-38", "subnormal",
    "1e38", "integers", "far bimodal",
)  # fmt: skip
FORMATS = formats(
    "int8", "int8 symmetric", "uint8", "uint8 one-sided", "int16 symmetric", "int4 symmetric", "int8 power of two"
)
HOW = {name: Ranging(name) for name in METHODS} | {
    "Percentile, symmetric": Ranging("Percentile", percentile=99.9, symmetric=True),
    "LayerwisePercentile, mse": Ranging("LayerwisePercentile", symmetric=True, metric="mse", candidates=(90.0, 99.99)),
    "Entropy, few bins": Ranging("Entropy", bins=64, levels=16),
}
by_method = pytest.mark.parametrize("how", HOW.values(), ids=HOW)
by_distribution = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


def test_every_method_is_there() -> None:
    assert set(TABLE) == set(METHODS)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match=r"MinMSEE.*MinMSE"):
        find_range(Statistics.of(NORMAL), Format(), Ranging("MinMSEE"))


@by_distribution
@by_method
def test_a_usable_range(how: Ranging, values: np.ndarray) -> None:
    """Finite, with 0 inside, and a scale that is finite and positive; no step of it overflows or divides by 0."""
    seen = Statistics.of(values)
    for name, format in FORMATS.items():
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            lo, hi = find_range(seen, format, how)
            q = qparams(lo, hi, format)
        assert np.isfinite((lo, hi)).all(), name
        assert lo <= 0 <= hi, name
        assert 0 < q.scale < np.inf, name
        assert format.lo <= q.zero_point <= format.hi, name
        assert type(lo) is type(hi) is float, name


@cache
def split_and_merged(name: str) -> list[Statistics]:
    """The data in another order, in parts of several sizes, the parts added up in another order again."""
    rng = np.random.default_rng(len(name))
    results = []
    for size in (7, 97, 1500):
        mixed = rng.permutation(DISTRIBUTIONS[name])
        parts = [Statistics.of(mixed[i : i + size]) for i in range(0, len(mixed), size)]
        merged = Statistics.of(np.zeros(0))
        for k in rng.permutation(len(parts)):
            merged = merged + parts[k] if k % 2 else parts[k] + merged
        results.append(merged)
    return results


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@by_method
def test_the_same_range_however_the_data_are_split(how: Ranging, name: str) -> None:
    for format_name, format in FORMATS.items():
        whole = find_range(Statistics.of(DISTRIBUTIONS[name]), format, how)
        for merged in split_and_merged(name):
            assert find_range(merged, format, how) == whole, format_name


BOTH_SIDES = [Ranging(name, symmetric=True) for name in METHODS if name not in CUTS_BOTH_ENDS]


@by_distribution
@pytest.mark.parametrize("how", BOTH_SIDES, ids=lambda how: how.method)
def test_a_range_that_is_to_be_symmetric_is_what_a_symmetric_grid_would_have(how: Ranging, values: np.ndarray) -> None:
    """CalibTensorRangeSymmetric. Powers of two are not doubled by it, and what is symmetric already does not move."""
    seen = Statistics.of(values)
    for name, format in FORMATS.items():
        plain = find_range(seen, format, replace(how, symmetric=False))
        lo, hi = find_range(seen, format, how)
        if format.symmetric:
            assert (lo, hi) == plain, name
            continue
        assert lo == -hi, name
        wide = max(-plain[0], plain[1])
        if how.method in ("MinMax", "NonOverflow"):
            assert hi == wide, name
        symmetric = replace(format, symmetric=True, strict=True)
        one = qparams(*find_range(seen, symmetric, replace(how, symmetric=False)), symmetric)
        both = qparams(lo, hi, format)
        assert float(both.scale) <= float(one.scale) * (1 + 1e-6), name


def test_powers_of_two_stay_where_ranges_become_symmetric() -> None:
    format, how = Format(scale="pow2"), Ranging("MinMSE", symmetric=True)
    for scale in (0.5, 0.9, 1.1):
        seen = Statistics.of(NORMAL * scale)
        both = qparams(*find_range(seen, format, how), format)
        grid = replace(format, symmetric=True, strict=True)
        assert both.scale == qparams(*find_range(seen, grid, Ranging("MinMSE")), grid).scale


CUTTING = {name: how for name, how in HOW.items() if how.method not in ("MinMax", "NonOverflow", "tf")}


@pytest.mark.parametrize("how", CUTTING.values(), ids=CUTTING)
def test_what_cuts_cuts_an_outlier(how: Ranging) -> None:
    """A method that only ever took all of the range would pass everything above."""
    values = np.append(np.tile(NORMAL, 200), 30.0)
    assert find_range(Statistics.of(values), Format(4), how)[1] < 25


@pytest.mark.parametrize("name", ("MinMax", "NonOverflow", "tf"))
@by_distribution
def test_what_clips_nothing_takes_it_all(name: str, values: np.ndarray) -> None:
    """AIMET's moves to its grid, by half a step at most."""
    single = values.astype(np.float32)
    finite = np.append(single[np.isfinite(single)], 0.0).astype(np.float64)
    lo, hi = find_range(Statistics.of(values), Format(), Ranging(name))
    slack = (hi - lo) / 255 * 0.501 if name == "tf" else 0
    assert abs(lo - finite.min()) <= slack
    assert abs(hi - finite.max()) <= slack


SMOOTH = {name: how for name, how in HOW.items() if (how.method, how.bins) != ("Entropy", 2048)}  # 1 value a bin


@pytest.mark.parametrize("name", ("gaussian", "laplace", "heavy tail", "far bimodal"))
@pytest.mark.parametrize("how", SMOOTH.values(), ids=SMOOTH)
def test_values_and_their_histogram_give_about_the_same(how: Ranging, name: str) -> None:
    """Weights come as exact values. 8 %: a bin of AIMET's histogram is 1/512 of the range, and minima are flat."""
    values = DISTRIBUTIONS[name].astype(np.float32)
    for format in FORMATS.values():
        scales = [
            float(qparams(*find_range(seen, format, how), format).scale)
            for seen in (Distribution.of(Statistics.of(values)), Distribution.of_values(values))
        ]
        near = 2.0 if format.scale == "pow2" else 1.08
        assert 1 / near <= scales[0] / scales[1] <= near
