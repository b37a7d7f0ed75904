"""int32 biases: the scale is the product that integer kernels use, and every code fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.layer.integer_bias import LIMIT, codes, raise_costs_accuracy, raised_scale, scale

EPS = 2.0**-23
INT32_MAX = 2**31 - 1

scales = st.floats(2.0**-60, 2.0**20, width=32).map(np.float32)
magnitudes = st.one_of(st.just(0.0), st.floats(-(2.0**40), 2.0**40, width=32))
law = settings(deadline=None, max_examples=200)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.float32, np.ndarray, int]:
    """bias, input scale, weight scale (one, or one per channel of a group), groups."""
    channels, groups = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    per_channel = draw(st.booleans())
    bias = draw(st.lists(magnitudes, min_size=channels * groups, max_size=channels * groups))
    weight = draw(st.lists(scales, min_size=channels, max_size=channels)) if per_channel else draw(scales)
    groups = groups if per_channel else 1
    return np.array(bias, np.float32), np.array(draw(scales)), np.array(weight, np.float32), groups


def exact_codes(bias: np.ndarray, bias_scale: np.ndarray) -> np.ndarray:
    return np.rint(bias.astype(np.float64) / bias_scale)


@law
@given(layers())
def test_every_code_fits_into_int32(layer: tuple[np.ndarray, np.float32, np.ndarray, int]) -> None:
    bias, sx, sw, groups = layer
    raised = raised_scale(bias, sx, sw, groups)
    used = scale(sx, sw if raised is None else raised, groups)
    assert used.dtype == np.float32
    wide = exact_codes(bias, used)
    assert np.abs(wide).max() <= INT32_MAX
    np.testing.assert_array_equal(codes(bias, used), wide)


@law
@given(layers())
def test_the_scale_is_raised_only_where_needed_and_no_further(
    layer: tuple[np.ndarray, np.float32, np.ndarray, int],
) -> None:
    """A raised channel has a code at the limit, to the rounding of three float32 numbers; the others stay."""
    bias, sx, sw, groups = layer
    needs = np.abs(exact_codes(bias, sx.astype(np.float64) * np.tile(sw.astype(np.float64), groups)))
    needs = needs.reshape(groups, -1).max(axis=0) if sw.ndim else needs.max()
    raised = raised_scale(bias, sx, sw, groups)
    if raised is None:
        assert np.all(needs <= LIMIT * (1 + EPS))
        return
    assert np.any(needs > LIMIT * (1 - EPS))
    assert raised.shape == sw.shape
    assert np.all(raised >= sw)
    np.testing.assert_array_equal(raised[needs < LIMIT * (1 - EPS)], sw[needs < LIMIT * (1 - EPS)])
    used = np.abs(exact_codes(bias, scale(sx, raised, groups)))
    used = used.reshape(groups, -1).max(axis=0) if sw.ndim else used.max()
    assert np.all(used[needs > LIMIT] >= LIMIT * (1 - 3 * EPS))


@law
@given(layers())
def test_the_bias_scale_is_the_float32_product(layer: tuple[np.ndarray, np.float32, np.ndarray, int]) -> None:
    _, sx, sw, groups = layer
    product = scale(sx, sw, groups)
    expected = [np.float32(sx) * np.float32(w) for w in np.atleast_1d(sw)] * groups
    np.testing.assert_array_equal(np.atleast_1d(product), np.array(expected, np.float32))
    assert product.shape == (() if sw.ndim == 0 else (sw.size * groups,))


@law
@given(layers())
def test_codes_are_off_by_half_a_step(layer: tuple[np.ndarray, np.float32, np.ndarray, int]) -> None:
    """To the rounding of float64: codes reach 2³¹, so bias / scale carries 2³¹ · 2⁻⁵² of a step."""
    bias, sx, sw, groups = layer
    used = scale(sx, sw, groups).astype(np.float64)
    assume(np.abs(bias.astype(np.float64) / used).max() < LIMIT)
    error = np.abs(codes(bias, used.astype(np.float32)) * used - bias)
    assert np.all(error <= used * (0.5 + 2.0**-20))


def test_groups_share_the_scale_of_their_largest_bias() -> None:
    """ConvTranspose: weight (in, out / groups, …), so channel c of every group has weight scale c."""
    bias = np.array([0, 1, 0, 0, 0, 8], np.float32)
    sw = np.full(3, 1e-9, np.float32)
    raised = raised_scale(bias, np.array(1.0, np.float32), sw, groups=2)
    np.testing.assert_allclose(raised, [1e-9, 1e-9, 8 / LIMIT], rtol=2 * EPS)


def test_one_bias_number_for_all_channels() -> None:
    raised = raised_scale(np.array([4.0]), np.array(1.0, np.float32), np.array([1.0, 1e-10], np.float32))
    np.testing.assert_allclose(raised, [1.0, 4 / LIMIT], rtol=2 * EPS)


def test_the_largest_products_fit_beside_the_largest_bias() -> None:
    """What kernels add to the bias in int32: u8 codes less any zero point times s8 codes."""
    assert LIMIT + 33_000 * 255 * 127 <= INT32_MAX


def test_no_raise_where_nothing_overflows() -> None:
    assert raised_scale(np.ones(3), np.array(0.1, np.float32), np.full(3, 0.1, np.float32)) is None
    assert raised_scale(np.zeros(1), np.array(0.1, np.float32), np.array(0.1, np.float32)) is None


def test_scales_whose_product_is_no_normal_number_are_raised() -> None:
    tiny = np.array(2.0**-100, np.float32)
    raised = raised_scale(np.zeros(1), tiny, tiny)
    assert raised is not None
    assert scale(tiny, raised) >= 2.0**-120


@pytest.mark.parametrize(
    ("factor", "terms", "bits", "costs"),
    [
        (2.0, 10**9, 16, False),  # a step up by rounding, or by one bit, is no news
        (2.1, 32_768, 8, False),  # 32,768 · 256 / 2³¹ is 1/256 exactly
        (2.1, 32_769, 8, True),
        (2.1, 128, 16, False),
        (2.1, 129, 16, True),
        (1e6, 9, 8, False),
    ],
)
def test_a_raised_scale_costs_accuracy_in_long_sums(factor: float, terms: int, bits: int, costs: bool) -> None:
    assert raise_costs_accuracy(factor, terms, Format(bits)) is costs


@pytest.mark.parametrize(("terms", "costs"), [(9, False), (32_768, False), (65_536, True)])
def test_a_raised_scale_costs_what_its_rule_says(terms: int, costs: bool) -> None:
    """The worst case: inputs 255 steps from their zero point, weights just below half a step of the raised grid."""
    sx, bias = np.array(0.02, np.float32), np.array([1e6], np.float32)
    weight = np.full(terms, 0.49 * 1e6 / LIMIT / 0.02)
    raised = raised_scale(bias, sx, np.float32(weight[0] / 127).reshape(()))
    assert raised is not None
    lost = 255 * float(sx) * np.abs(weight - np.rint(weight / raised) * raised).sum()
    assert bool(lost > bias[0] / 256) is costs
    assert raise_costs_accuracy(float(raised * 127 / weight[0]), terms, Format()) is costs
