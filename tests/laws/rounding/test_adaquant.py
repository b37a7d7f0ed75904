"""AdaQuant: any codes of a fixed grid, never worse than rounding to nearest."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import Problem

from quark_onnx.numerics.rounding.adaquant import adaquant
from quark_onnx.numerics.rounding.moments import with_bias
from quark_onnx.numerics.rounding.objectives import Objective, Quadratic

law = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**16)


problem = partial(Problem, biased=True)


@law
@given(seeds, st.sampled_from([2, 3, 4, 8]), st.booleans(), st.sampled_from([1, 7, 120]))
def test_codes_of_the_grid_and_never_worse_than_nearest(seed: int, bits: int, sampled: bool, iterations: int) -> None:
    p = problem(seed, bits=bits)
    low, high = -p.high, p.high - (seed % 2)
    objective: Objective = p.sampled() if sampled else p.q
    got = adaquant(p.weight, None, p.scale, objective, low, high, p.unit, num_iterations=iterations)
    np.testing.assert_array_equal(got.codes, np.rint(got.codes))
    assert got.codes.min() >= low and got.codes.max() <= high
    assert np.all(got.loss <= p.loss(p.nearest(low, high), objective))
    np.testing.assert_array_equal(got.loss, p.loss(got.codes, objective))
    assert 1 <= got.iterations <= iterations
    assert got.bias is None


@pytest.mark.parametrize("bits", [4, 8])
def test_much_better_than_nearest_where_inputs_are_correlated(bits: int) -> None:
    p = problem(0, bits=bits)
    got = adaquant(p.weight, None, p.scale, p.q, -p.high, p.high, p.unit)
    assert got.loss.sum() < 0.5 * p.loss(p.nearest()).sum()


def test_a_trained_bias_serves_nearly_as_well_as_the_fitted_one() -> None:
    p = problem(1)
    off = p.bias + np.float32(0.5)
    joint = Quadratic.joint(p.weight, off, p.moments)
    run = partial(adaquant, p.weight, scale=p.scale, low=-p.high, high=p.high, unit=p.unit, early_stop=False)
    trained = run(bias=off, objective=joint)
    assert trained.bias is not None
    values = with_bias(trained.codes * p.scale[..., None], trained.bias)
    np.testing.assert_allclose(trained.loss, joint.loss(values), rtol=1e-4)
    start = joint.loss(with_bias(p.nearest() * p.scale[..., None], off))
    assert np.all(trained.loss < start)
    fitted = run(bias=None, objective=p.q)
    assert trained.loss.sum() <= 2 * fitted.loss.sum()


def test_the_best_state_is_kept_not_the_last() -> None:
    p = problem(2)
    wild = adaquant(p.weight, None, p.scale, p.q, -p.high, p.high, p.unit, num_iterations=50, learning_rate=50.0)
    assert np.all(wild.loss <= p.loss(p.nearest()))


def test_stops_early_only_when_told() -> None:
    p = problem(3)
    run = partial(adaquant, p.weight, None, p.scale, p.q, -p.high, p.high, p.unit, num_iterations=2000)
    stopped, full = run(), run(early_stop=False)
    assert stopped.iterations < full.iterations == 2000
    assert stopped.iterations % 200 == 0
    assert run(window=50).iterations % 50 == 0


def test_same_seed_same_codes() -> None:
    p = problem(4)

    def run(seed: int) -> np.ndarray:
        kept = p.sampled(seed)
        return adaquant(p.weight, None, p.scale, kept, -p.high, p.high, p.unit, num_iterations=60).codes

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


def test_arguments_are_left_alone() -> None:
    p = problem(5)
    weight, bias, scale = p.weight.copy(), p.bias.copy(), p.scale.copy()
    joint = Quadratic.joint(p.weight, p.bias, p.moments)
    adaquant(p.weight, p.bias, p.scale, joint, -p.high, p.high, p.unit, num_iterations=20)
    for before, after in ((weight, p.weight), (bias, p.bias), (scale, p.scale)):
        np.testing.assert_array_equal(before, after)
