"""AdaQuant: any codes of a fixed grid, never worse than rounding to nearest."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding_problems import Problem

from quark_onnx.numerics.rounding.adaquant import adaquant
from quark_onnx.numerics.rounding.learning import Rounded
from quark_onnx.numerics.rounding.objectives import Objective
from quark_onnx.numerics.rounding.settings import TuningSettings

law = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**16)
SETTINGS = TuningSettings(learning_rate=0.02)


problem = partial(Problem, biased=True)


@law
@given(seeds, st.sampled_from([2, 3, 4, 8]), st.booleans(), st.sampled_from([1, 7, 120]))
def test_codes_of_the_grid_and_never_worse_than_nearest(seed: int, bits: int, sampled: bool, iterations: int) -> None:
    p = problem(seed, bits=bits)
    low, high = -p.high, p.high - (seed % 2)
    objective: Objective = p.sampled() if sampled else p.q
    got = adaquant(p.weight, p.grid(low, high), objective, p.unit, SETTINGS, iterations)
    np.testing.assert_array_equal(got.codes, np.rint(got.codes))
    assert got.codes.min() >= low and got.codes.max() <= high
    assert np.all(got.loss <= p.loss(p.nearest(low, high), objective))
    np.testing.assert_array_equal(got.loss, p.loss(got.codes, objective))
    assert 1 <= got.iterations <= iterations


@pytest.mark.parametrize("bits", [4, 8])
def test_much_better_than_nearest_where_inputs_are_correlated(bits: int) -> None:
    p = problem(0, bits=bits)
    got = adaquant(p.weight, p.grid(), p.q, p.unit, SETTINGS, 1000)
    assert got.loss.sum() < 0.5 * p.loss(p.nearest()).sum()


def test_the_best_state_is_kept_not_the_last() -> None:
    p = problem(2)
    wild = adaquant(p.weight, p.grid(), p.q, p.unit, replace(SETTINGS, learning_rate=50.0), 50)
    assert np.all(wild.loss <= p.loss(p.nearest()))


def test_stops_early_only_when_told() -> None:
    p = problem(3)

    def run(**how: Any) -> Rounded:
        return adaquant(p.weight, p.grid(), p.q, p.unit, replace(SETTINGS, **how), 2000)

    stopped, full = run(), run(early_stop=False)
    assert stopped.iterations < full.iterations == 2000
    assert stopped.iterations % 200 == 0
    assert run(window=50).iterations % 50 == 0


def test_same_seed_same_codes() -> None:
    p = problem(4)

    def run(seed: int) -> np.ndarray:
        return adaquant(p.weight, p.grid(), p.sampled(seed), p.unit, replace(SETTINGS, early_stop=False), 60).codes

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


def test_arguments_are_left_alone() -> None:
    p = problem(5)
    weight, scale = p.weight.copy(), p.scale.copy()
    adaquant(p.weight, p.grid(), p.q, p.unit, SETTINGS, 20)
    for before, after in ((weight, p.weight), (scale, p.scale)):
        np.testing.assert_array_equal(before, after)
