"""Each rule against finite differences, on random shapes and attributes."""

from __future__ import annotations

import numpy as np
import pytest
from finite_differences import BOUND, error_of
from gradient_problems import PROBLEMS

from quark_onnx.graph.gradient.table import RULES

SHAPES = 20
QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}  # see test_gradients_of_quantizers.py


def test_every_rule_is_checked() -> None:
    assert PROBLEMS.keys() | QUANTIZERS == RULES.keys()


@pytest.mark.parametrize("name", PROBLEMS)
def test_rule_agrees_with_finite_differences(name: str) -> None:
    for seed in range(SHAPES):
        problem = PROBLEMS[name](np.random.default_rng([seed, *name.encode()]))
        assert f"{name} " in problem.nodes or name == "Sum"
        assert error_of(problem, seed) <= BOUND, (seed, problem)
