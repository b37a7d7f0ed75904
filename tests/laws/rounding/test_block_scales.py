"""Rounding where blocks of inputs have scales of their own: the search, the fit, and what every method owes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import Problem

from quark_onnx.numerics.rounding.block_scales import refined, search_blocks
from quark_onnx.numerics.rounding.coordinate_descent import descend
from quark_onnx.numerics.rounding.gptq import factored, gptq
from quark_onnx.numerics.rounding.methods import Rounding
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.scale_fit import fitted_scale
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, WeightGrid, each, nearest, up_or_down

law = settings(deadline=None, max_examples=12)
seeds = st.integers(0, 2**16)
METHODS = {
    "gptq": TuningSettings("gptq"),
    "adaround": TuningSettings("adaround", num_iterations=30),
    "adaround, quick": TuningSettings("adaround", num_iterations=30, quick=True),
    "adaround of 8 bits": TuningSettings("adaround", num_iterations=0, quick=True),
    "adaquant": TuningSettings("adaquant", num_iterations=30, learning_rate=0.02),
}


def with_zeros(p: Problem, seed: int) -> WeightGrid:
    """A grid of 16 codes whose zero points differ from block to block."""
    zeros = np.random.default_rng(seed).integers(0, 16, p.scale[..., :: p.block].shape)
    wide = np.repeat(zeros, p.block or 1, -1)[..., : p.weight.shape[-1]].astype(np.float32)
    return replace(p.grid(), low=0 - wide, high=15 - wide)


def rounded(p: Problem, grid: WeightGrid, how: TuningSettings) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(p.weight.shape[:2], np.float32)
    codes, scale, _ = Rounding(p.weight, p.q, None, grid, how, ones, 0 * ones).found()
    return codes, scale


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
@settings(deadline=None, max_examples=4)
@given(seeds, st.sampled_from([(14, 4), (14, 5), (14, 8), (8, 4)]))
def test_codes_are_of_the_grid_and_no_row_is_worse_than_nearest(
    name: str, zeros: bool, seed: int, size: tuple[int, int]
) -> None:
    k, block = size
    p = Problem(seed, k=k, block=block)
    grid = with_zeros(p, seed) if zeros else p.grid()
    codes, scale = rounded(p, grid, METHODS[name])
    assert np.all((codes == np.rint(codes)) & (codes >= grid.low) & (codes <= grid.high))
    starts = np.arange(k) // block * block
    assert np.all((scale == scale[..., starts]) & (scale > 0))
    near = nearest(p.weight, grid.scale, grid.low, grid.high)
    before = p.q.loss(near * grid.scale)
    assert np.all(p.q.loss(codes * scale) <= before * 1.0001 + 1e-6)


def test_every_method_gains_much_and_adaround_as_much_as_gptq() -> None:
    p = Problem(3, r=60, k=30, block=8)
    before, losses = p.loss(p.nearest()).sum(), {}
    for name, how in METHODS.items():
        codes, scale = rounded(p, p.grid(), how)
        losses[name] = p.q.loss(codes * scale).sum() / before
    assert max(losses.values()) < 0.7
    assert losses["adaround, quick"] <= 1.001 * losses["gptq"] < 0.5


@law
@given(seeds)
def test_a_block_of_all_inputs_is_a_row(seed: int) -> None:
    row, block = Problem(seed), Problem(seed, block=12)
    codes = gptq(row.down, row.up, row.scale, row.q, factored(row.q))
    np.testing.assert_array_equal(gptq(block.down, block.up, block.scale, block.q, factored(row.q)), codes)
    swept = descend(row.nearest(), row.down, row.up, row.scale, row.q, 3)
    np.testing.assert_array_equal(descend(block.nearest(), block.down, block.up, block.scale, block.q, 3), swept)
    _, scale = refined(codes, row.q, block.grid(), 1)
    ones = np.ones_like(row.scale)
    fitted = fitted_scale(codes, row.scale, row.q, PER_CHANNEL, ones, 0 * ones)
    np.testing.assert_allclose(scale, np.repeat(each(fitted), 12, -1), rtol=2e-3)


@law
@given(seeds, st.permutations(range(3)))
def test_the_order_of_blocks_means_nothing(seed: int, order: list[int]) -> None:
    """Scales and codes move with their blocks, to the bit: columns are rounded in the order of their importance."""
    p = Problem(seed, block=4)
    at = np.concatenate([np.arange(4) + 4 * i for i in order])
    moved = Quadratic(p.q.origin[..., at], p.q.hessian[:, at][..., at], p.q.residual[..., at], p.q.floor)
    weight, grid = p.weight[..., at], p.grid().at(p.scale[..., at])
    found = search_blocks(p.weight, p.grid(), p.q.importance, (1.0, 0.8, 0.6))
    np.testing.assert_array_equal(search_blocks(weight, grid, moved.importance, (1.0, 0.8, 0.6)), found[..., at])
    codes = gptq(*up_or_down(p.weight, found, -7, 7), found, p.q, factored(p.q))
    np.testing.assert_array_equal(
        gptq(*up_or_down(weight, found[..., at], -7, 7), found[..., at], moved, factored(moved)), codes[..., at]
    )


@law
@given(seeds)
def test_the_search_finds_the_best_factor_of_every_block(seed: int) -> None:
    p, factors = Problem(seed, k=14, block=5, bits=3), (1.0, 0.85, 0.7, 0.55)
    found = search_blocks(p.weight, p.grid(), p.q.importance, factors)
    for row in range(4):
        for start in (0, 5, 10):
            part = np.s_[0, row, start : start + 5]
            w, weights = p.weight[part], p.q.importance[0, start : start + 5]
            scales = [p.scale[part] * np.float32(f) for f in factors]
            costs = [float((np.square(np.clip(np.rint(w / s), -3, 3) * s - w) * weights).sum()) for s in scales]
            chosen = next(i for i, s in enumerate(scales) if (s == found[part]).all())
            assert costs[chosen] <= min(costs) * 1.00001


@law
@given(seeds, st.booleans())
def test_a_round_never_costs_and_in_the_end_no_block_is_better_otherwise(seed: int, fit: bool) -> None:
    p = Problem(seed, k=14, block=5)
    codes, grid = p.nearest(), p.grid()
    for _ in range(20):
        found, scale = refined(codes, p.q, grid, 1, fit=fit)
        assert np.all(p.q.loss(found * scale) <= p.q.loss(codes * grid.scale) * 1.0001 + 1e-6)
        assert fit or (scale == grid.scale).all()
        codes, grid = found, grid.at(scale)
    best = p.q.loss(codes * grid.scale)
    for column in range(14):
        for step in (-1, 1) if not fit else ():
            other = codes.copy()
            other[..., column] += step
            near = (np.abs(other - p.weight / grid.scale).max(-1) < 0.9999) & (np.abs(other).max(-1) <= 7)
            assert np.all((best <= p.q.loss(other * grid.scale) * 1.001 + 1e-6) | ~near)
    for start in (0, 5, 10) if fit else ():
        for factor in (0.97, 1.03):
            scale = grid.scale.copy()
            scale[..., start : start + 5] *= np.float32(factor)
            assert np.all(best <= p.q.loss(codes * scale) * 1.001 + 1e-6)


def test_a_block_whose_codes_are_0_keeps_its_scale() -> None:
    p = Problem(1, block=4)
    p.q = replace(p.q, origin=np.where(np.arange(12) // 4 == 1, np.float32(0), p.q.origin))
    codes = nearest(p.q.origin, p.scale, -7, 7)
    _, scale = refined(codes, p.q, p.grid(), 1)
    np.testing.assert_array_equal(scale[..., 4:8], p.scale[..., 4:8])
    assert np.all(scale[..., :4] != p.scale[..., :4])


def test_rows_of_a_grid_in_blocks() -> None:
    p = Problem(0, block=4)
    grid = with_zeros(p, 0)
    some = grid.rows(slice(1, 3))
    np.testing.assert_array_equal(some.low, np.asarray(grid.low)[:, 1:3])
    assert (some.scale.shape, some.block) == ((1, 2, 12), 4)
    assert p.grid().rows(slice(1, 3)).bounds()[0].shape == (1, 2, 1)
