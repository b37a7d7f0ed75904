"""The bias of a layer whose weight stays: sums over positions add up, and nothing gets worse on held-out ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.numerics.activation_functions import Activation, Relu
from quark_onnx.numerics.layer.bias_shift import Errors, shift
from quark_onnx.numerics.layer.integer_bias import LIMIT, OwnGrid
from quark_onnx.numerics.layer.sampling import Layer

G, R, K = 2, 3, 4


def draw(n: int, seed: int = 0, off: float = 0.5) -> tuple[Layer, Any, Any, Any]:
    """The same layer and its quantized weight for all, x, and z that is off by a constant."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng([seed, n])
    weight = fixed.standard_normal((G, R, K)).astype(np.float32)
    x = rng.standard_normal((G, n, K)).astype(np.float32)
    layer = Layer(weight, fixed.standard_normal((G, R)).astype(np.float32))
    return layer, weight + np.float32(0.01), x, x + np.float32(off)


def errors(n: int, seed: int = 0, off: float = 0.5, active: tuple[float, float] | None = None) -> Errors:
    layer, weight, x, z = draw(n, seed, off)
    return Errors.of(Layer(layer.weight, layer.bias, active=active), weight, x, z, 1)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_parts_add_up(n: int, m: int, clamped: bool) -> None:
    layer, weight, x, z = draw(n + m)
    layer = Layer(layer.weight, layer.bias, active=(0.0, np.inf) if clamped else None)
    whole = Errors.of(layer, weight, x, z, 1)
    sides = [Errors.of(layer, weight, x[:, part], z[:, part], 1) for part in (slice(n), slice(n, None))]
    both = sides[0] + sides[1]
    assert both.positions == whole.positions == n + m
    # y and found are float32 products of K numbers below 8: each is off by K + 1 roundings of 2⁻²⁴ · 64 at most
    tolerance = (n + m) * 2 * (K + 1) * 64 * 2.0**-24
    np.testing.assert_allclose(both.off, whole.off, atol=tolerance)
    np.testing.assert_allclose(both.y, whole.y, atol=tolerance)
    assert both.y.shape == both.found.shape == whole.y.shape


@pytest.mark.parametrize("active", [None, (0.0, np.inf)])
def test_the_bias_is_the_mean_of_what_is_missing(active: tuple[float, float] | None) -> None:
    """Of the positions that the activation function lets through, where there are such."""
    found = errors(500, active=active)
    missing = found.y.astype(np.float64) - found.found
    mask = np.ones_like(missing) if active is None else (found.y > 0) + 1e-3
    np.testing.assert_allclose(found.bias, (missing * mask).sum(1) / mask.sum(1), rtol=1e-6, atol=1e-5)


def test_what_is_off_is_taken_back() -> None:
    layer, weight, x, z = draw(400)
    done = shift(layer.bias, errors(400), errors(100), Activation(), None)
    assert done.accepted
    assert done.held_after < done.held_before / 10
    y = np.swapaxes(layer.weight, 1, 2)
    left = (x @ y + layer.bias[:, None]) - (z @ np.swapaxes(weight, 1, 2) + done.bias[:, None])
    np.testing.assert_allclose(left.mean(1), 0, atol=0.2)  # means of 400 and 100 positions differ by some hundredths


def test_what_held_out_positions_do_not_confirm_is_not_done() -> None:
    """The twin: they are off the other way."""
    layer, *_ = draw(1)
    train, held = errors(4000), errors(400, seed=1, off=-0.5)
    done = shift(layer.bias, train, held, Activation(), None)
    assert not done.accepted
    assert (done.bias == layer.bias).all()
    assert (done.loss_after, done.held_after) == (done.loss_before, done.held_before)


@given(st.integers(0, 30), st.floats(-1, 1), st.booleans())
def test_held_out_positions_never_lose(seed: int, off: float, clamped: bool) -> None:
    layer, *_ = draw(1)
    activation: Activation = Relu() if clamped else Activation()
    done = shift(layer.bias, errors(30, seed, off), errors(9, seed + 1, off), activation, np.ones((G, R), np.float32))
    assert done.held_after <= done.held_before
    assert done.accepted == (done.held_after < done.held_before)


def test_the_bias_fits_its_type() -> None:
    layer, *_ = draw(1)
    train = errors(400, off=8.0)
    steps = np.full((G, R), 1e-9)
    done = shift(layer.bias, train, None, Activation(), None, steps=steps)
    assert (np.abs(done.bias) <= np.float32(LIMIT * 1e-9)).all()
    grid = OwnGrid(QParams(np.float32(0.25), np.int32(0)), Format(8, True, True))
    done = shift(layer.bias, train, None, Activation(), None, grid=grid)
    assert done.accepted
    assert (done.bias == grid.nearest(done.bias)).all()


def test_what_is_not_finite_is_told() -> None:
    layer, weight, x, z = draw(5)
    x[0, 0, 0] = np.inf
    assert not Errors.of(layer, weight, x, z, 1).finite
    assert errors(5).finite
