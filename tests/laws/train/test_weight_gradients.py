"""Gradients of latent weights and scales against finite differences: of the smooth part of what they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from quark_onnx.core.number_formats import Format
from quark_onnx.stages.train.latent_weights import Grid, StraightThrough, soft

SHAPE = (4, 6)
FORMATS = {
    "per tensor": Format(4, symmetric=True),
    "per channel": Format(4, symmetric=True, axis=0),
    "blocks": Format(4, symmetric=True, axis=1, block=4),
}
SCALES = {"per tensor": (), "per channel": (4,), "blocks": (4, 2)}


def drawn(which: str) -> tuple[Grid, np.ndarray, np.ndarray, np.ndarray]:
    """A grid, a latent weight that reaches beyond it, its scale, and the gradient of a loss."""
    rng = np.random.default_rng(3)
    scale = rng.uniform(0.5, 2, SCALES[which]).astype(np.float32)
    grid = Grid.of(SHAPE, FORMATS[which], np.zeros(SCALES[which], np.int32))
    return grid, rng.uniform(-11, 10, SHAPE).astype(np.float32), scale, rng.standard_normal(SHAPE)


@pytest.mark.parametrize("which", FORMATS)
def test_straight_through_is_the_gradient_with_rounding_taken_as_a_shift(which: str) -> None:
    grid, v, scale, slope = drawn(which)
    latent = StraightThrough(grid, v, np.rint)
    one = np.ones(SHAPE, np.float32)
    shift = np.rint(np.clip(v, grid.low, grid.high)) - np.clip(v, grid.low, grid.high)

    def loss(v: np.ndarray, scale: np.ndarray, first: np.ndarray) -> float:
        size = grid.spread(scale).astype(np.float64)
        u = np.clip(v * grid.spread(first).astype(np.float64) / size, grid.low, grid.high) + shift
        return float((slope * u * size).sum())

    of_v, each = latent.gradients(v, one, slope * grid.spread(scale), 0.0)
    of_scale = grid.gathered(each, scale) / scale
    step = 1e-5
    for index in np.ndindex(SHAPE):
        up, down = v.astype(np.float64), v.astype(np.float64)
        up[index] += step
        down[index] -= step
        numeric = (loss(up, scale, scale) - loss(down, scale, scale)) / (2 * step)
        assert of_v[index] == pytest.approx(numeric, abs=1e-4)
    for index in np.ndindex(scale.shape) if scale.ndim else [()]:
        up, down = scale.astype(np.float64), scale.astype(np.float64)
        up[index] += step
        down[index] -= step
        numeric = (loss(v, up, scale) - loss(v, down, scale)) / (2 * step)
        assert of_scale[index] == pytest.approx(numeric, abs=1e-3)


def test_soft_rounding_is_differentiated_exactly_while_nothing_pulls() -> None:
    grid, real, scale, slope = drawn("per tensor")
    real = np.clip(real, grid.low, grid.high)
    latent = soft(grid, np.rint(real), real, np.rint)
    v = np.random.default_rng(5).uniform(-1.5, 1.5, SHAPE)
    of_v, _ = latent.gradients(v, np.ones(SHAPE), slope * scale, 0.1)
    step = 1e-6
    up, down = (latent.codes(v + d, np.ones(SHAPE), False) for d in (step, -step))
    assert np.allclose(of_v, slope * scale * (up - down) / (2 * step), rtol=1e-4, atol=1e-6)


def test_soft_rounding_begins_at_the_codes_and_ends_at_one_of_two() -> None:
    grid, real, _, _ = drawn("per tensor")
    real = np.clip(real, grid.low, grid.high)
    latent = soft(grid, np.rint(real), real, np.rint)
    start = latent.codes(latent.start(), np.ones(SHAPE), False)
    assert np.abs(start - np.rint(real)).max() == pytest.approx(0.05, abs=1e-6)
    assert np.array_equal(latent.codes(latent.start(), np.ones(SHAPE), True), np.rint(real))
    other = latent.codes(-latent.start(), np.ones(SHAPE), True)
    assert (np.abs(other - np.rint(real)) == 1).all() and (other >= grid.low).all() and (other <= grid.high).all()
    inside = (np.rint(real) != real) & (np.abs(np.rint(real)) < 7)
    assert (np.sign(other - np.rint(real)) == np.sign(real - np.rint(real)))[inside].all()


def test_late_in_training_soft_roundings_are_pulled_apart() -> None:
    grid, _, _, slope = drawn("per tensor")
    latent = soft(grid, np.zeros(SHAPE, np.float32), np.full(SHAPE, 0.4), np.rint)
    for v, sign in ((0.8, -1), (-0.8, 1)):
        early, late = (latent.gradients(np.full(SHAPE, v), np.ones(SHAPE), slope, p)[0] for p in (0.1, 0.99))
        assert (np.sign(late - early) == sign).all()
