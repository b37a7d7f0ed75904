"""Layers with a few options each, cost against damage: which option for each, for every budget there may be.

    for λ from 0 to ∞:  every layer takes the option with the least  cost + λ · damage

Both add up over layers, so the layers decide each on their own: an option is ever taken only if it lies on the lower
convex hull of its layer, and the steps along all hulls, those first that take away most damage for their cost, are the
path from the cheapest choice to the one that does least damage. No choice of options costs less than one on the path
and does less damage, but for the remainder that a knapsack of whole steps leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Option = tuple[float, float]
"""(cost, damage), neither negative."""


@dataclass(frozen=True)
class Step:
    """One layer moves to its next option: it costs so much more, and does so much less damage."""

    layer: int
    option: int
    cost: float
    gain: float


@dataclass(frozen=True)
class UpgradePath:
    """All choices that are worth having: the first `count` steps, for every count.

    start  the cheapest option of each layer
    steps  from there, most gain for its cost first
    """

    start: tuple[int, ...]
    steps: tuple[Step, ...]

    def chosen(self, count: int) -> list[int]:
        """The option of each layer after so many steps."""
        found = list(self.start)
        for step in self.steps[:count]:
            found[step.layer] = step.option
        return found


def upgrade_path(layers: Sequence[Sequence[Option]]) -> UpgradePath:
    """The path of layers, each with one option at least; equal ones count in the order that they have."""
    hulls = [_hull(options) for options in layers]
    steps = [
        Step(layer, after, layers[layer][after][0] - cost, damage - layers[layer][after][1])
        for layer, hull in enumerate(hulls)
        for before, after in pairwise(hull)
        for cost, damage in [layers[layer][before]]
    ]
    # Along a hull gains per cost fall, and sorting is stable: steps of a layer stay in their order.
    steps.sort(key=lambda step: -step.gain / step.cost)
    return UpgradePath(tuple(hull[0] for hull in hulls), tuple(steps))


def _hull(options: Sequence[Option]) -> list[int]:
    """Indices of the options on the lower convex hull, from the cheapest to the least damage."""
    found: list[int] = []
    for index in sorted(range(len(options)), key=lambda i: (*options[i], i)):
        if found and options[index][1] >= options[found[-1]][1]:
            continue
        while len(found) > 1 and _slope(options, found[-2], found[-1]) >= _slope(options, found[-1], index):
            found.pop()
        found.append(index)
    return found


def _slope(options: Sequence[Option], one: int, other: int) -> float:
    """Damage by cost, from one option to another that costs more: negative."""
    return (options[other][1] - options[one][1]) / (options[other][0] - options[one][0])
