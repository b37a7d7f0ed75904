"""Pairs of weights: real codes are moved to the nearest safe ones, and whatever rounds them makes none unsafe."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.rounding import safe_rounding
from quark_onnx.numerics.rounding.adaquant import adaquant
from quark_onnx.numerics.rounding.adaround import adaround
from quark_onnx.numerics.rounding.coordinate_descent import descend, polish
from quark_onnx.numerics.rounding.methods import Rounding
from quark_onnx.numerics.rounding.moments import Moments
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.safe_rounding import GROWTH, Inputs, SafeRounding, round_safely
from quark_onnx.numerics.rounding.scale_search import search_scale
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, PER_ROW, PER_TENSOR, WeightGrid, nearest, up_or_down
from quark_onnx.numerics.weight_pairs import LIMIT, partners, project, repair, unsafe_pairs

F32 = np.ndarray
law = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**16)
sizes = st.sampled_from([(1, 1), (2, 2), (5, 5), (8, 8), (33, 33), (9, 3), (8, 1), (66, 33), (70, 7)])
"""Columns of a row, and of the runs inside which neighbours are pairs; more than are descended at a time, too."""


def columns_of(k: int, run: int) -> tuple[list[int], list[int]]:
    """The first and the second columns of all pairs, one by one."""
    first = [j for j in range(k) if j % run % 2 == 0 and j % run + 1 < run]
    return first, [j + 1 for j in first]


def large(seed: int, k: int, r: int = 5) -> F32:
    """Weights (1, r, k) in codes, most of them so large that neighbours of one sign are unsafe."""
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random((1, r, k)) < 0.8, 1, -1) * np.where(rng.random((1, r, 1)) < 0.5, 1, -1)
    return (signs * rng.uniform(30, 127, (1, r, k))).astype(np.float32)


def problem(seed: int, k: int) -> tuple[F32, F32, Quadratic]:
    """Weights, scales of 1 per row, and what their rounding costs on correlated inputs."""
    weight = large(seed, k)
    rng = np.random.default_rng(seed)
    z = np.maximum(rng.standard_normal((1, 20 * k + 20, k)) @ rng.standard_normal((k, k)) + 0.5, 0).astype(np.float32)
    y = z @ np.swapaxes(weight, 1, 2)
    return weight, np.ones(weight.shape[:2], np.float32), Quadratic.around(weight, Moments.of(y, z))


@law
@given(seeds, sizes)
def test_projection_is_the_nearest_point_of_a_half_space(seed: int, size: tuple[int, int]) -> None:
    """What is too much is taken off both in equal parts, and nothing of a pair that is safe; |u| < 128 has 17 bits
    behind the point in float32, so that a sum is off by 2⁻¹⁶ at most."""
    k, run = size
    (one, other), u = columns_of(k, run), large(seed, k)
    p = project(u, run)
    sums = (p[..., one] + p[..., other]).astype(np.float64)
    assert np.all(np.abs(sums) <= LIMIT + 2.0**-16)
    moved = u - p
    np.testing.assert_allclose(moved[..., one], moved[..., other], atol=2.0**-16)
    safe = np.abs(u[..., one] + u[..., other]) <= LIMIT
    assert not moved[..., one][safe].any() and not np.delete(moved, one + other, -1).any()
    assert np.all(p * u >= 0)  # no weight changes its sign


@law
@given(seeds, sizes)
def test_repair_makes_up_and_down_safe_by_steps_towards_zero(seed: int, size: tuple[int, int]) -> None:
    k, run = size
    u, (one, other) = project(large(seed, k), run), columns_of(k, run)
    rng = np.random.default_rng(seed)
    codes = np.clip(np.floor(u) + (rng.random(u.shape) < 0.7), -127, 127).astype(np.float32)
    fixed = repair(codes, u, run)
    assert not unsafe_pairs(fixed, run).any()
    steps = np.abs(codes) - np.abs(fixed)
    assert set(np.unique(steps)) <= {0.0, 1.0}
    unsafe = np.abs(codes[..., one] + codes[..., other]) > LIMIT
    np.testing.assert_array_equal(unsafe_pairs(codes, run), unsafe)
    assert not steps[..., one][~unsafe].any() and not steps[..., other][~unsafe].any()
    assert not np.delete(steps, one + other, -1).any()


@given(sizes)
def test_partners_are_the_pairs(size: tuple[int, int]) -> None:
    k, run = size
    one, other = columns_of(k, run)
    found = partners(k, run)
    assert [found[j] for j in one] == other and [found[j] for j in other] == one
    assert all(found[j] == j for j in set(range(k)).difference(one, other))
    assert partners(k, 0) == list(range(k))


@law
@given(seeds, sizes)
def test_every_way_to_round_ends_with_safe_pairs(seed: int, size: tuple[int, int]) -> None:
    """… and is in no row worse than safe codes that are nearest; the twin without the constraint is unsafe."""
    k, run = size
    weight, scale, q = problem(seed, k)
    low, high = -127.0, 127.0
    start = nearest(weight, scale, low, high, run)
    bounds = up_or_down(weight, scale, low, high, run)
    unit = np.maximum(scale**2 * q.curvature, 1e-30)
    learned = q, unit, TuningSettings(num_iterations=30)
    grid, ones = WeightGrid(scale, low, high, PER_CHANNEL, safe_run=run), np.ones_like(scale)
    unswept = TuningSettings("gptq", fit_scale=False, polish=0)
    found = {
        "nearest": start,
        "descend": descend(start, low, high, scale, q, 3, run),
        "polish": polish(start, *bounds, scale, q, 3, None, run),
        "adaround": adaround(weight, grid, *learned).codes,
        "adaquant": adaquant(weight, grid, *learned).codes,
        "gptq": Rounding(weight, q, None, grid, unswept, ones, 0 * ones).found()[0],
    }
    at_start = q.loss(start)
    for name, codes in found.items():
        np.testing.assert_array_equal(codes, np.rint(codes))
        assert np.abs(codes).max() <= high, name
        assert not unsafe_pairs(codes, run).any(), name
        assert np.all(q.loss(codes) <= at_start + 1e-4 * np.abs(at_start) + 1e-3), name
    if k > 8:
        assert unsafe_pairs(nearest(weight, scale, low, high), run).any()


def test_a_searched_scale_is_judged_by_safe_codes() -> None:
    """All weights alike: free codes are exact at the first scale, safe ones only at one twice as large."""
    weight = np.full((1, 2, 8), 127, np.float32)
    z = np.random.default_rng(0).standard_normal((1, 100, 8)).astype(np.float32)
    q = Quadratic.around(weight, Moments.of(z @ np.swapaxes(weight, 1, 2), z))
    top = np.full((1, 2), 2, np.float32)
    for run, factor in ((0, 0.5), (1, 0.5), (8, 127 / 128)):
        found = search_scale(weight, q.loss, -127, 127, top, PER_CHANNEL, factors=(0.5, 0.7, 127 / 128), safe_run=run)
        np.testing.assert_allclose(found, top * factor)


# plain rounding


def inputs(k: int, seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)
    return Inputs(rng.uniform(0, 2, (1, k)).astype(np.float32), rng.uniform(0, 1, (1, k)).astype(np.float32))


@law
@given(seeds, sizes, st.sampled_from([PER_CHANNEL, PER_TENSOR]))
def test_plain_rounding_is_safe_and_loses_less_than_repaired_codes(
    seed: int, size: tuple[int, int], shared: tuple[int, ...]
) -> None:
    k, run = size
    weight, seen = large(seed, k), inputs(k, seed)
    scale = np.ones(weight.shape[:2], np.float32)
    grid = WeightGrid(scale, -127, 127, shared, run)
    plain = nearest(weight, scale, -127, 127)
    found = round_safely(weight, grid, seen, [scale * np.float32(f) for f in GROWTH])
    if found is None:
        assert not unsafe_pairs(plain, run).any()
        return
    assert not unsafe_pairs(found.codes, run).any()
    assert np.abs(found.codes).max() <= 127
    safe_rows = ~unsafe_pairs(plain, run).any(-1)
    if shared == PER_CHANNEL:
        np.testing.assert_array_equal(found.codes[safe_rows], plain[safe_rows])
        np.testing.assert_array_equal(found.scale[safe_rows], scale[safe_rows])
    else:
        assert len(np.unique(found.scale)) == 1
    repaired = seen.damped().loss(nearest(weight, scale, -127, 127, run) - weight)
    own = seen.damped().loss(found.codes * found.scale[..., None] - weight)
    assert own.sum() <= repaired.sum() * (1 + 1e-4) + 1e-3
    np.testing.assert_allclose(found.loss, own.sum(), rtol=1e-4, atol=1e-3)


@law
@given(seeds, sizes, st.sampled_from([PER_TENSOR, PER_CHANNEL]), st.sampled_from([-100, 90]))
def test_plain_rounding_does_not_depend_on_the_unit_of_weights(
    seed: int, size: tuple[int, int], shared: tuple[int, ...], power: int
) -> None:
    """2^power times the weights have the same codes: squares beyond float32's range are no part of the choice."""
    k, run = size
    weight, seen = large(seed, k), inputs(k, seed)
    scale = np.ones(weight.shape[:2], np.float32)

    def rounded(unit: int) -> SafeRounding | None:
        grid = WeightGrid(np.ldexp(scale, unit), -127, 127, shared, safe_run=run)
        return round_safely(np.ldexp(weight, unit), grid, seen, [grid.scale * np.float32(f) for f in GROWTH])

    found, expected = rounded(power), rounded(0)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.scale, np.ldexp(expected.scale, power))
        np.testing.assert_allclose(found.decibel, expected.decibel, rtol=1e-9)
        assert found.costs_much == expected.costs_much


@pytest.mark.parametrize("shared", [PER_CHANNEL, PER_TENSOR, PER_ROW])
@pytest.mark.parametrize("part", [1, 3 * 24 * 3, 10**9])
def test_rows_are_rounded_a_few_at_a_time(part: int, shared: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same codes for any number of them; rows of three groups, some of them safe as they are."""
    weight = np.concatenate([large(seed, 24, 10) for seed in range(3)]) * np.float32([[[1]], [[0.3]], [[1]]])
    seen = Inputs(*(np.concatenate(sides) for sides in zip(*(inputs(24, seed) for seed in range(3)), strict=True)))
    grid = WeightGrid(np.ones(weight.shape[:2], np.float32), -127, 127, shared, weight.shape[-1])
    scales = [grid.scale * np.float32(f) for f in GROWTH]
    expected = round_safely(weight, grid, seen, scales)
    monkeypatch.setattr(safe_rounding, "PART", part)
    found = round_safely(weight, grid, seen, scales)
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scale, expected.scale)
    assert (found.nearest_loss, found.loss, found.signal) == (expected.nearest_loss, expected.loss, expected.signal)


@pytest.mark.parametrize("shared", [PER_CHANNEL, PER_TENSOR])
@pytest.mark.parametrize("groups", [1, 3])
def test_scales_are_tried_a_few_at_a_time(
    groups: int, shared: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same codes for any number of them, whether all rows have the same inputs or not."""
    weight = np.concatenate([large(seed, 24, 10) for seed in range(groups)])
    seen = Inputs(*(np.concatenate(sides) for sides in zip(*(inputs(24, seed) for seed in range(groups)), strict=True)))
    grid = WeightGrid(np.ones(weight.shape[:2], np.float32), -127, 127, shared, weight.shape[-1])
    found = []
    for together in (1, 3 * weight.size, 1 << 20):
        monkeypatch.setattr(safe_rounding, "TOGETHER", together)
        found.append(round_safely(weight, grid, seen, [grid.scale * np.float32(f) for f in GROWTH]))
    for one, two, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("shared", [PER_CHANNEL, PER_TENSOR])
def test_rounding_takes_the_memory_of_a_part(shared: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """And that of the codes: the sixteenth part of a weight takes a quarter of what all of it takes."""
    weight = np.tile(large(0, 64, 32), (1, 64, 1))
    grid = WeightGrid(np.ones(weight.shape[:2], np.float32), -127, 127, shared, weight.shape[-1])
    peaks = []
    for part in (weight.size, weight.size // 16):
        monkeypatch.setattr(safe_rounding, "PART", part)
        tracemalloc.start()
        found = round_safely(weight, grid, inputs(64), [grid.scale * np.float32(1.2)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found is not None
        assert found.codes.nbytes == weight.nbytes / 2
    assert peaks[1] < peaks[0] / 4


def test_the_shift_of_the_output_is_taken_back_by_other_codes() -> None:
    """Inputs that hardly vary: an output is as good as its mean. Making a pair safe costs 2 · 31 codes of it."""
    weight = np.concatenate([np.full(2, 95), np.full(60, 20)]).astype(np.float32)[None, None]
    seen = Inputs(np.ones((1, 62), np.float32), np.full((1, 62), 1e-3, np.float32))
    grid = WeightGrid(np.ones((1, 1), np.float32), -127, 127, PER_CHANNEL, weight.shape[-1])
    found = round_safely(weight, grid, seen)
    assert found is not None
    assert abs(float((found.codes - weight).sum())) <= 1
    assert np.abs((nearest(weight, grid.scale, -127, 127, 62) - weight).sum()) == 62


def test_what_costs_much() -> None:
    """Weights of one size are exact as integers, and as safe ones only at another scale, which may not be taken."""
    weight = np.full((1, 4, 6), 127, np.float32)
    seen = Inputs(np.zeros((1, 6), np.float32), np.ones((1, 6), np.float32))
    grid = WeightGrid(np.ones((1, 4), np.float32), -127, 127, PER_CHANNEL, weight.shape[-1])
    found = round_safely(weight, grid, seen)
    assert found is not None and found.costs_much
    raised = round_safely(weight, grid, seen, [grid.scale * np.float32(127 / 64)])
    assert raised is not None and not raised.costs_much
