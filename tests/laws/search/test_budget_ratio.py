"""How far a model is from a budget: 1 just within it, more the more is lost, infinite where nothing is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.settings.budget import Budget
from quark_onnx.optimize.budget_ratio import LEAST, budget_ratio
from quark_onnx.optimize.search import UNNOTICED, bent

NOTHING: dict[str, Any] = {"sqnr": None, "kl": None, "agreement": None, "drop": None, "allowed_drop": None}
ASKED = Budget(max_drop=0.02, min_sqnr=20, min_agreement=0.96, max_kl=0.05)
AT: dict[str, Any] = {"sqnr": 20.0, "kl": 0.05, "agreement": 0.96, "drop": 0.02, "allowed_drop": 0.02}
TWICE = {"sqnr": 20 - 10 * math.log10(2), "kl": 0.1, "agreement": 0.92, "drop": 0.04}
PARTS = [
    ("sqnr", Budget(min_sqnr=20)),
    ("kl", Budget(max_kl=0.05)),
    ("agreement", Budget(min_agreement=0.96)),
    ("drop", Budget(max_drop=0.02)),
]
amounts = st.floats(0, 50)


def of(budget: Budget, **measured: Any) -> float:
    return budget_ratio(budget, **{**NOTHING, **measured})


@pytest.mark.parametrize(("key", "budget"), PARTS)
def test_one_at_the_budget_and_two_where_twice_as_much_is_lost(key: str, budget: Budget) -> None:
    allowed = {"allowed_drop": 0.02} if key == "drop" else {}
    assert of(budget, **{key: AT[key]}, **allowed) == pytest.approx(1, rel=1e-12)
    assert of(budget, **{key: TWICE[key]}, **allowed) == pytest.approx(2, rel=1e-12)
    assert of(ASKED, **{**AT, key: TWICE[key]}) == pytest.approx(2, rel=1e-12)  # where most is lost
    assert of(budget, **allowed) == math.inf  # not measured


@given(st.sampled_from(PARTS), amounts, amounts)
def test_the_more_is_lost_the_further(part: tuple[str, Budget], one: float, other: float) -> None:
    key, budget = part
    less, more = sorted((one, other))
    found = []
    for lost in (less, more):
        value = {"sqnr": 60 - lost, "agreement": 1 - lost / 50}.get(key, lost)
        found.append(of(budget, **{key: value, "allowed_drop": 0.02 if key == "drop" else None}))
    assert LEAST <= found[0] <= found[1]


def test_a_gain_counts_as_little_lost_and_no_budget_as_met() -> None:
    assert of(Budget(max_drop=0.02), drop=-0.3, allowed_drop=0.02) == LEAST
    assert of(Budget()) == LEAST
    assert of(Budget(max_kl=0.05), kl=math.nan) == math.inf


def test_a_budget_of_nothing_is_met_by_nothing_lost_alone() -> None:
    assert of(Budget(max_kl=0), kl=0.0) == of(Budget(min_agreement=1), agreement=1.0) == LEAST
    assert 100 < of(Budget(max_kl=0), kl=1e-6) < of(Budget(max_kl=0), kl=1e-5) < math.inf  # the nearest can be told
    assert 1e3 < of(Budget(min_agreement=1), agreement=0.99) < of(Budget(min_agreement=1), agreement=0.9) < math.inf


def test_the_knee_lies_farthest_below_the_line_between_the_ends() -> None:
    assert bent([(0, 10.0), (1, 0.1), (2, 0.08), (3, 0.07)]) == 1
    assert bent([(0, 10.0), (1, 9.0), (2, 0.1), (9, 0.09)]) == 2
    assert bent([(0, 10.0), (5, 9.0), (6, 8.0), (7, 0.01)]) == 3  # above the line all the way: the end


@given(st.lists(st.floats(0, UNNOTICED), min_size=1, max_size=6))
def test_of_damages_that_nobody_notices_the_cheapest_is_the_knee(damages: list[float]) -> None:
    assert bent(list(enumerate(damages))) == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=8))
def test_the_knee_is_no_worse_and_no_dearer_than_any_point_beyond(points: list[tuple[float, float]]) -> None:
    curve = sorted(points)
    cost, damage = curve[bent(curve)]
    noticed = max(damage, UNNOTICED)
    assert not any(other < noticed and price <= cost for price, other in curve if max(other, UNNOTICED) < noticed)
