"""Metrics of outputs: sums that do not depend on how the data is split, and the definitions themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quark_onnx.core.settings.mixed_precision import LESS_IS_BETTER, METRICS
from quark_onnx.numerics.metrics import WORST, Sqnr, divergences
from quark_onnx.stages.mixed_precision.output_score import measure

VALUES = st.floats(-1e3, 1e3, width=32)
PAIRS = st.lists(arrays(np.float32, (2, 3, 4), elements=VALUES), min_size=1, max_size=4)


def value(metric: str, *pairs: np.ndarray) -> float:
    found = measure(metric)
    for pair in pairs:
        found.add(pair[0], pair[1])
    return found.value


def noisy(noise: float, shape: tuple[int, ...] = (50, 10), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return np.stack([x, x + noise * rng.standard_normal(shape)])


def test_every_metric_is_there() -> None:
    assert set(METRICS) == {*WORST, "sqnr"}


@given(PAIRS)
def test_sqnr_is_that_of_the_report(pairs: list[np.ndarray]) -> None:
    wanted = Sqnr()
    for x, y in pairs:
        wanted.add(x, y)
    assert value("sqnr", *pairs) == pytest.approx(wanted.db, rel=1e-9)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_no_difference_is_the_best_value(metric: str) -> None:
    same = noisy(0.0)
    assert value(metric, same) == {"cosine": 1.0, "l2": 0.0, "kl": 0.0}.get(metric, math.inf)


@pytest.mark.parametrize("metric", sorted(METRICS))
@given(noise=st.floats(1e-3, 0.5))
def test_more_noise_is_worse(metric: str, noise: float) -> None:
    less, more = (value(metric, noisy(part)) for part in (noise, 1.5 * noise))
    assert (less < more) == (metric in LESS_IS_BETTER)
    assert less != more


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_value_that_is_lost_is_the_worst(metric: str, broken: float) -> None:
    pair = noisy(0.1)
    pair[1, 3, 3] = broken
    assert value(metric, pair) == (WORST | {"sqnr": -math.inf})[metric]
    pair[0, 3, 3] = broken
    kept = noisy(0.1)
    kept[:, 3, 3] = 0.0
    assert value(metric, pair) == value(metric, kept)


def test_definitions() -> None:
    x, y = np.array([[3.0, -1.0], [0.0, 2.0]]), np.array([[2.0, -1.0], [0.0, 4.0]])
    pair = np.stack([x, y])
    assert value("psnr", pair) == pytest.approx(10 * math.log10(4**2 / (5 / 4)))
    assert value("cosine", pair) == pytest.approx(15 / math.sqrt(14 * 21))
    assert value("l2", pair[:, :1], pair[:, 1:]) == pytest.approx((1 + 2) / 2)


@given(arrays(np.float64, (3, 5), elements=st.floats(-20, 20)), st.floats(-5, 5))
def test_a_constant_does_not_change_logits(logits: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(divergences(logits - 50, logits - 50 + shift), 0, atol=1e-9)


def test_distributions_are_taken_as_they_are() -> None:
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.75, 0.0]])
    assert divergences(p, q)[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert divergences(np.log(p[:, :2]) + 7, np.log(q[:, :2]))[0] == pytest.approx(divergences(p, q)[0])


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_nothing_is_neither_good_nor_bad(metric: str) -> None:
    assert math.isnan(measure(metric).value)
    assert math.isnan(value(metric, np.zeros((2, 0, 4))))
    assert not math.isnan(value(metric, np.zeros((2, 1))))
