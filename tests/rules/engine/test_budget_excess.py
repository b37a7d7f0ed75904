"""What exceeds a budget, in words: the worst output, what it has and should; and what nothing is known of."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quark_onnx.core.records import Measured
from quark_onnx.core.settings.budget import Budget
from quark_onnx.engine.budget_excess import excess

OUTPUTS = {
    "logits": Measured(values=80, sqnr=21.0, agreement=0.97, kl=0.04),
    "mask": Measured(values=80, sqnr=30.0, agreement=0.99, kl=0.06),
    "boxes": Measured(values=80, sqnr=18.04),
}
BOXES = {"boxes": OUTPUTS["boxes"]}


@pytest.mark.parametrize(
    ("just", "beyond", "said"),
    [
        ({"min_sqnr": 18.04}, {"min_sqnr": 18.1}, "output 'boxes' keeps 18.0 dB, and should keep 18.1"),
        (
            {"min_agreement": 0.97},
            {"min_agreement": 0.98},
            "output 'logits' has the same arg-max in 97.00% of rows, and should in a share of 0.98",
        ),
        ({"max_kl": 0.06}, {"max_kl": 0.05}, "output 'mask' has KL 0.06 from the float one, and may have 0.05"),
        ({"max_drop": 0.02}, {"max_drop": 0.01}, "the score falls by 0.02 (0.5 → 0.48), and may fall by 0.01"),
        ({"max_drop": "4%"}, {"max_drop": "3%"}, "the score falls by 0.02 (0.5 → 0.48), and may fall by 3% of it"),
    ],
)
def test_the_worst_output_decides(just: dict[str, Any], beyond: dict[str, Any], said: str) -> None:
    assert excess(Budget(**just), OUTPUTS, 0.5, 0.48) == ()
    assert excess(Budget(**beyond), OUTPUTS, 0.5, 0.48) == (said,)


def test_all_that_is_exceeded_is_told() -> None:
    found = excess(Budget(0.01, 20, 0.98, 0.05), OUTPUTS, 0.5, 0.48)
    assert [text.split(" ")[1] for text in found] == ["score", "'boxes'", "'logits'", "'mask'"]
    assert excess(Budget(), OUTPUTS) == ()


@pytest.mark.parametrize(
    ("asked", "outputs", "said"),
    [
        ({"max_kl": 9}, BOXES, "no output holds classes, and max_kl is part of the budget; use min_sqnr"),
        ({"min_agreement": 0}, BOXES, "no output holds classes, and min_agreement is part of the budget; use min_sqnr"),
        ({"min_agreement": 0, "max_kl": 9}, BOXES, "and min_agreement and max_kl are part of the budget"),
        ({"max_kl": 9}, {}, "without data it is not known how far classes agree"),
        ({"min_sqnr": 0}, {}, "without data the SQNR of the outputs is not known"),
        ({"min_sqnr": 0}, {"y": Measured()}, "no output holds a value on these samples"),
        ({"max_drop": 9}, OUTPUTS, "without an evaluator there is no score"),
    ],
)
def test_what_is_not_known_is_not_kept(asked: dict[str, Any], outputs: dict[str, Measured], said: str) -> None:
    (found,) = excess(Budget(**asked), outputs)
    assert said in found


@pytest.mark.parametrize("kl", [math.inf, math.nan])
def test_classes_that_are_lost_exceed_any_budget(kl: float) -> None:
    assert excess(Budget(max_kl=1e9), {"y": Measured(values=1, agreement=0.5, kl=kl)})
