"""Budgets: what they may say, and when a score has fallen too far."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.budget import Budget

SCORES = st.floats(-1e3, 1e3)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("1%", "1%"), (" 0.50 % ", "0.5%"), ("1e-1%", "0.1%"), ("0.01", 0.01), (2, 2.0), (0, 0.0), (None, None)],
)
def test_a_drop_is_a_number_or_a_share(said: Any, kept: Any) -> None:
    found = Budget(max_drop=said).max_drop
    assert found == kept and type(found) is type(kept)
    assert Budget(max_drop=found) == Budget(max_drop=said)


@pytest.mark.parametrize(
    "asked",
    [
        *({"max_drop": value} for value in (-0.1, "-1%", "101%", "%", "1 percent", "nan%", "nan", True, [1])),
        *({"min_sqnr": value} for value in (-1, float("inf"), "25")),
        *({"min_agreement": value} for value in (98, -0.1, "1%", True)),
        *({"max_kl": value} for value in (-1e-3, float("nan"), "5e-2")),
    ],
    ids=repr,
)
def test_what_is_out_of_range_is_named(asked: dict[str, Any]) -> None:
    (name,) = asked
    with pytest.raises(ConfigError, match=rf"\b{name} must be "):
        Budget(**asked)


def test_a_budget_that_asks_for_nothing_is_none() -> None:
    assert not Budget()
    for name, value in {"max_drop": 0.0, "min_sqnr": 0, "min_agreement": 0, "max_kl": 0}.items():
        assert Budget(**{name: value})


@given(SCORES, st.floats(0, 100), st.floats(0, 2))
def test_a_share_is_one_of_the_float_score(before: float, percent: float, part: float) -> None:
    """Of its size, whatever its sign."""
    budget = Budget(max_drop=f"{percent}%")
    drop = budget.drop_from(before)
    assert drop == pytest.approx(abs(before) * percent / 100, rel=1e-9, abs=1e-12)
    assert budget.too_low(before, before - part * drop) == (part * drop > drop + 1e-9)


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.89), (0.3, 0.29), (57.1, 57.09)])
def test_a_score_that_falls_as_far_as_it_may_is_kept(before: float, after: float) -> None:
    """0.9 − 0.89 is more than 0.01 in floating point."""
    assert not Budget(max_drop=0.01).too_low(before, after)
    assert Budget(max_drop=0.01).too_low(before, after - 1e-6)
    assert not Budget().too_low(before, -1e9)
    assert not Budget(max_drop=0).too_low(before, before + 1)
