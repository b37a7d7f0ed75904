"""How far a model is from a budget, as one number: what it loses, of what it may lose, where most is lost."""

from __future__ import annotations

import math

from quark_onnx.core.settings.budget import Budget

LEAST = 0.01
"""Of what may be lost; a model that loses less, or gains, counts as this."""

NOTHING = 1e-9
"""What may be lost where the budget says nothing: less than anything that is measured, so that the nearest is told."""


def budget_ratio(
    budget: Budget,
    *,
    sqnr: float | None,
    kl: float | None,
    agreement: float | None,
    drop: float | None,
    allowed_drop: float | None,
) -> float:
    """1: just within the budget; 2: twice as much is lost. Infinite where what counts was not measured.

    Noise power, divergence, the share of answers that differ, and the drop of a score all grow with the noise that
    quantizing makes.

    Args:
        drop, allowed_drop: in units of the score.
    """
    found = []
    if budget.min_sqnr is not None:
        found.append(math.inf if sqnr is None else 10 ** ((budget.min_sqnr - sqnr) / 10))
    if budget.max_kl is not None:
        found.append(_ratio(kl, budget.max_kl))
    if budget.min_agreement is not None:
        found.append(_ratio(None if agreement is None else 1 - agreement, 1 - budget.min_agreement))
    if allowed_drop is not None:
        found.append(_ratio(drop, allowed_drop))
    return max([LEAST, *found])


def _ratio(lost: float | None, allowed: float) -> float:
    if lost is None or math.isnan(lost):
        return math.inf
    if lost <= 0:
        return LEAST
    return lost / max(allowed, NOTHING)
