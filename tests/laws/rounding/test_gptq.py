"""GPTQ: each column makes up for those before it; and the scale that suits given codes best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import Problem

from quark_onnx.numerics.rounding import gptq as columns
from quark_onnx.numerics.rounding.coordinate_descent import exhaust
from quark_onnx.numerics.rounding.gptq import factored, gptq
from quark_onnx.numerics.rounding.methods import Rounding
from quark_onnx.numerics.rounding.objectives import Quadratic
from quark_onnx.numerics.rounding.scale_fit import fitted_scale
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import PER_CHANNEL, PER_TENSOR

law = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**16)
QUICK = TuningSettings(num_iterations=300, quick=True)


def by_solving(p: Problem) -> np.ndarray:
    """The same in the words of the paper: the columns that are left get the values that are best now, then one is
    rounded."""
    q = p.q
    order = np.argsort(-np.diagonal(q.hessian[0]), kind="stable")
    h, rows = q.hessian[0].astype(np.float64), []
    for r in range(p.weight.shape[1]):
        codes, e = np.zeros(len(order)), np.zeros(len(order))
        for k, column in enumerate(order):
            rest = order[k:]
            wanted = q.residual[0, r][rest] - h[np.ix_(rest, order[:k])] @ e[order[:k]]
            best = np.linalg.solve(h[np.ix_(rest, rest)], wanted)[0]
            code = np.rint((q.origin[0, r, column] + best) / p.scale[0, r])
            codes[column] = np.clip(code, p.down[0, r, column], p.up[0, r, column])
            e[column] = codes[column] * p.scale[0, r] - q.origin[0, r, column]
        rows.append(codes)
    return np.array(rows)[None]


@law
@given(seeds)
def test_each_column_is_rounded_at_the_best_that_the_others_leave(seed: int) -> None:
    """Against equations solved anew for every column, in float64: rows in which nothing lies next to a half agree."""
    p = Problem(seed, bits=3)
    p.q = replace(p.q, residual=np.random.default_rng(seed).standard_normal(p.weight.shape).astype(np.float32))
    got, slow = gptq(p.down, p.up, p.scale, p.q, factored(p.q)), by_solving(p)
    assert np.all((got == p.down) | (got == p.up))
    assert (got == slow).all(-1).mean() >= 0.75


@pytest.mark.parametrize("block", [1, 5, 128])
def test_blocks_of_columns_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Problem(1, k=14)
    whole = gptq(p.down, p.up, p.scale, p.q, factored(p.q))
    monkeypatch.setattr(columns, "COLUMNS", block)
    np.testing.assert_array_equal(gptq(p.down, p.up, p.scale, p.q, factored(p.q)), whole)


def test_much_better_than_nearest_and_near_the_best() -> None:
    p = Problem(0, r=40, k=8)
    got, near = p.loss(gptq(p.down, p.up, p.scale, p.q, factored(p.q))).sum(), p.loss(p.nearest()).sum()
    best = p.loss(exhaust(p.down, p.up, p.scale, p.q)).sum()
    assert best <= got <= 2 * best < near


def test_groups_are_rounded_on_their_own() -> None:
    one, two = Problem(0), Problem(1)
    both = Quadratic(*(np.concatenate(pair) for pair in zip(_fields(one.q), _fields(two.q), strict=True)))
    low, high, scale = (np.concatenate([getattr(one, n), getattr(two, n)]) for n in ("down", "up", "scale"))
    apart = [gptq(p.down, p.up, p.scale, p.q, factored(p.q)) for p in (one, two)]
    np.testing.assert_array_equal(gptq(low, high, scale, both, factored(both)), np.concatenate(apart))


@pytest.mark.parametrize("k", [12, 13])
def test_large_factors_are_found_in_strips(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """U D U' is H again, in the order of the columns; what is not positive definite gets a ridge there, too."""
    p = Problem(5, k=k)
    whole = factored(p.q)
    monkeypatch.setattr(columns, "DIRECT", 4)
    monkeypatch.setattr(columns, "STRIP", 5)
    parts = factored(p.q)
    assert whole is not None and parts is not None
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert not np.tril(parts.upper[0], -1).any()
    again = parts.upper[0] * parts.diagonal[0] @ parts.upper[0].T
    at = parts.order[0]
    np.testing.assert_allclose(again, p.q.hessian[0][np.ix_(at, at)], rtol=1e-3, atol=1e-3)
    flat = factored(replace(p.q, hessian=np.ones_like(p.q.hessian)))
    assert flat is not None and np.isfinite(flat.upper).all()


def _fields(q: Quadratic) -> tuple[np.ndarray, ...]:
    return q.origin, q.hessian, q.residual, q.floor


def test_inputs_that_are_copies_or_never_seen_do_not_stop_it() -> None:
    """H has rank 1: it gets positive definite by what is added to its diagonal."""
    p = Problem(2)
    flat = replace(p.q, hessian=np.ones_like(p.q.hessian))
    got = gptq(p.down, p.up, p.scale, flat, factored(flat))
    assert np.all((got == p.down) | (got == p.up))
    wild = replace(p.q, hessian=np.full_like(p.q.hessian, np.inf))
    np.testing.assert_array_equal(gptq(p.down, p.up, p.scale, wild, factored(wild)), p.nearest())


@law
@given(seeds, st.sampled_from([PER_CHANNEL, PER_TENSOR]))
def test_no_scale_suits_the_codes_better(seed: int, shared: tuple[int, ...]) -> None:
    p = Problem(seed)
    gain = np.random.default_rng(seed).uniform(0.1, 2, p.scale.shape).astype(np.float32)
    codes = p.nearest()

    def loss(scale: np.ndarray) -> np.ndarray:
        rows = p.q.loss(codes * scale[..., None]) * gain
        return rows.sum(keepdims=True) if shared else rows

    found = fitted_scale(codes, p.scale, p.q, shared, gain, 0 * p.scale)
    assert not shared or np.ptp(found) == 0
    for factor in (1 / 1.01, 1.01):  # float32 leaves 1e-5 of the loss
        assert np.all(loss(found) <= loss(found * np.float32(factor)) + 1e-5 * np.abs(loss(found)) + 1e-6)


def test_a_scale_is_no_smaller_than_its_floor_and_stays_where_all_codes_are_0() -> None:
    p = Problem(3)
    ones = np.ones_like(p.scale)
    codes = p.nearest()
    codes[:, 0] = 0
    found = fitted_scale(codes, p.scale, p.q, PER_CHANNEL, ones, 0 * ones)
    assert found[0, 0] == p.scale[0, 0]
    assert np.all(fitted_scale(codes, p.scale, p.q, PER_CHANNEL, ones, 9 * ones) == 9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_below_8_bits_scale_and_codes_together_beat_codes_alone(bits: int) -> None:
    p = Problem(0, bits=bits, r=100)
    ones = np.ones_like(p.scale)

    def loss(settings: TuningSettings) -> np.ndarray:
        codes, scale, iterations = Rounding(p.weight, p.q, None, p.grid(), settings, ones, 0 * ones).found()
        assert (iterations > 0) == settings.quick
        assert np.abs(codes).max() <= p.high
        return p.q.loss(codes * scale[..., None])

    fitted, stays, near = map(loss, (QUICK, replace(QUICK, fit_scale=False), TuningSettings("nearest")))
    assert np.all(fitted <= near)
    assert fitted.sum() < 0.95 * stays.sum() < 0.95 * near.sum()
