"""The bootstrap's standard error: that of a mean is std / √n; and what it does not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.numerics.search import paired_bootstrap
from quark_onnx.numerics.search.paired_bootstrap import DRAWS, drawn_means, standard_error

CHANCE = 5 * math.sqrt(3 / DRAWS) / 2
"""Five times the relative standard error of a standard deviation over DRAWS draws, √((2 + κ) / 4 DRAWS): the excess
kurtosis κ of a mean of n is that of its values / n, and theirs is at most n."""

SAMPLES = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).standard_normal(seed % 60 + 2))


@given(SAMPLES)
def test_it_is_that_of_a_mean(values: np.ndarray) -> None:
    assert standard_error(values) == pytest.approx(values.std() / math.sqrt(len(values)), rel=CHANCE)


@pytest.mark.parametrize("right", [1, 50, 90, 99])
def test_it_is_that_of_a_share(right: int) -> None:
    assert standard_error(1.0 * (np.arange(100) < right)) == pytest.approx(
        math.sqrt(right * (100 - right)) / 1000, rel=CHANCE
    )


@given(SAMPLES)
def test_the_order_of_samples_changes_no_more_than_chance(values: np.ndarray) -> None:
    """Draws are of places, not of values: the same values elsewhere are other draws."""
    assert standard_error(values[::-1]) == pytest.approx(standard_error(values), rel=2 * CHANCE)


@given(SAMPLES)
def test_signs_and_powers_of_two_are_exact(values: np.ndarray) -> None:
    """So it does not matter which of two scores is taken from which."""
    assert standard_error(-values) == standard_error(values)
    assert standard_error(values / 8) == standard_error(values) / 8
    assert standard_error(values) == standard_error(values)


def test_what_differs_by_the_same_everywhere_has_no_noise() -> None:
    assert standard_error(np.full(7, 0.125)) == 0


@pytest.mark.parametrize("at_once", [1, 30, 1000, 1 << 20])
def test_blocks_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the samples of a block; one row at the least."""
    values = np.arange(10.0)
    expected = drawn_means(values)
    monkeypatch.setattr(paired_bootstrap, "AT_ONCE", at_once)
    assert expected.shape == (DRAWS,) and 0 <= expected.min() < expected.max() <= 9
    assert np.array_equal(drawn_means(values), expected)
