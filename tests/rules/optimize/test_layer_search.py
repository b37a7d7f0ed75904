"""The search on a table that is made up: a run shows something near what it says, and nothing is quantized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.optimize.budget_ratio import budget_ratio
from quark_onnx.optimize.layer_table import LayerTable
from quark_onnx.optimize.outcome_wording import reason
from quark_onnx.optimize.records import LayerOption, LayerRow, Objective, Point
from quark_onnx.optimize.rungs import bottom, rungs
from quark_onnx.optimize.search import CLOSE, WORTH, Search
from quark_onnx.optimize.trials import Stopped

BOTTOM = bottom("cpu", {})
WEIGHTS = (1000, 4000, 2000, 9000, 500, 16000, 3000, 700, 8000, 1200, 5000, 2500)
FOUR_BITS = (0.3, 0.02, 0.09, 0.01, 0.2, 0.004, 0.03, 0.15, 0.008, 0.05, 0.012, 0.024)


def rows(damages: Sequence[float] = FOUR_BITS) -> list[LayerRow]:
    found = []
    for index, (count, damage) in enumerate(zip(WEIGHTS, damages, strict=False)):
        options = (
            LayerOption("w4", damage, count // 2, 1.0 * count),
            LayerOption("a8w8", damage / 40, count, 0.3 * count),
            LayerOption("float", 0.0, 4 * count, 1.0 * count),
        )
        found.append(LayerRow((f"layer{index}",), "Conv", count, options))
    return found


@dataclass
class MadeUp:
    """In place of `Trials`: a run loses what the table says, bent by `truth`; the ladder loses `ladder` of it all."""

    budget: Budget
    truth: Callable[[float], float] = lambda damage: damage
    ladder: Sequence[float] = (0.3, 0.1, 0.06, 0.05, 0.04, 0.04)
    fails: Callable[[int], bool] = lambda number: False
    stops: int = 99
    damages: Sequence[float] = FOUR_BITS
    points: list[Point] = field(default_factory=list)
    ratios: dict[int, float] = field(default_factory=dict)

    def run(
        self, name: str, step: Any, config: QuantizationConfig, choices: Any = None, predicted: Any = None
    ) -> Point:
        number = len(self.points) + 1
        if number == self.stops:
            raise Stopped("Ctrl-C")
        text = config.to_json()
        point = Point(number, name, step, text, choices or {}, predicted=predicted, seconds=1.0)
        if self.fails(number):
            self.ratios[number] = math.inf
            point = replace(point, error="it failed")
        else:
            chosen = {f"layer{i}": "a8w8" for i in range(len(WEIGHTS))} | (choices or {})
            options = [
                next(o for o in row.options if o.choice == chosen[row.nodes[0]])
                for row in rows(self.damages)
                if row.nodes[0] in chosen
            ]
            damage = self.truth(sum(o.damage for o in options)) if choices else self.ladder[number - 1]
            ratio = budget_ratio(self.budget, sqnr=None, kl=damage, agreement=None, drop=None, allowed_drop=None)
            self.ratios[number] = ratio
            over = ("too much",) if self.budget and ratio > 1 else ()
            size = sum(option.bytes for option in options)
            time = sum(option.time for option in options) / sum(WEIGHTS)
            point = replace(point, kl=damage, damage=damage, size=size, time=time, over=over)
        self.points.append(point)
        return point

    @property
    def task(self) -> SimpleNamespace:
        return SimpleNamespace(budget=self.budget, float_size=4 * sum(WEIGHTS))


def searched(trials: MadeUp, objective: Objective = "size", table: Any = None) -> tuple[Search, list[Point]]:
    told: list[Point] = []
    made = table if table is not None else rows(trials.damages)
    search = Search(trials, objective, lambda config: made, told.append)  # type: ignore[arg-type]
    with suppress(Stopped):
        search.run(BOTTOM, rungs(BOTTOM, objective))
    return search, told


def along(trials: MadeUp) -> list[Point]:
    return [point for point in trials.points if point.step == "layers"]


def cheapest(trials: MadeUp, kl: float) -> float:
    """Cost of the cheapest prefix of the path that is within the budget."""
    table = LayerTable.of(rows(trials.damages), "size")
    return min(table.cost(n) for n in range(table.steps + 1) if trials.truth(table.damage(n)) <= kl)


TRUTHS: dict[str, Callable[[float], float]] = {
    "as the table says": lambda damage: damage,
    "a third": lambda damage: damage / 3,
    "three times": lambda damage: 3 * damage,
    "grows faster": lambda damage: 2 * damage**1.3,
    "grows slower": lambda damage: 0.4 * damage**0.8,
}


@pytest.mark.parametrize("kl", [0.05, 0.15, 0.4])
@pytest.mark.parametrize("truth", TRUTHS)
def test_the_cheapest_prefix_within_the_budget_is_found(truth: str, kl: float) -> None:
    trials = MadeUp(Budget(max_kl=kl), TRUTHS[truth])
    search, told = searched(trials)
    assert search.best is not None and search.best.good and told[-1] is search.best
    assert 1 <= len(along(trials)) <= 5
    assert not [config for config, count in Counter(p.config for p in along(trials)).items() if count > 1]
    count = next((n for n, point in search.runs.items() if point is search.best), None)
    assert search.table is not None and count is not None
    costs = [search.table.cost(n) for n in range(search.table.steps + 1)]
    dearest = max(after - before for before, after in pairwise(costs))
    assert search.table.cost(count) <= cheapest(trials, CLOSE * kl) * (1 + WORTH) + dearest


def test_where_four_bits_everywhere_are_good_enough_one_run_along_the_path_tells() -> None:
    trials = MadeUp(Budget(max_kl=5.0))
    search, _ = searched(trials)
    assert [len(along(trials)), len(trials.points)] == [1, 2]
    assert search.best is trials.points[-1] and set(search.best.choices.values()) == {"w4"}


def test_a_budget_that_nothing_meets_gives_the_nearest_and_says_so() -> None:
    trials = MadeUp(Budget(max_kl=0.01), lambda damage: damage + 0.02, ladder=(0.9,) * 6)
    search, _ = searched(trials)
    best = search.best
    assert best is not None and not best.good and len(along(trials)) <= 5
    assert best.damage == min(point.damage for point in trials.points if point.damage is not None)
    assert reason(search, best, met=False).startswith(f"none of {len(trials.points)} points is within the budget")


def test_what_fails_is_on_record_and_the_search_goes_on() -> None:
    failing = MadeUp(Budget(max_kl=0.15), fails=lambda number: number in (1, 3))
    search, _ = searched(failing)
    assert [point.number for point in failing.points if point.error] == [1, 3]
    assert search.best is not None and search.best.good
    trials = MadeUp(Budget(max_kl=0.15), fails=lambda number: True)
    search, told = searched(trials)
    assert search.best is None and not told and len(trials.points) > 6


def test_a_prefix_that_fails_is_not_the_end() -> None:
    """What failed says nothing of how much is lost: others are tried, and what they show counts."""
    trials = MadeUp(Budget(max_kl=0.15), fails=lambda number: number == 3)
    search, _ = searched(trials)
    assert search.best is not None and search.best.step == "layers" and search.best.good


@pytest.mark.parametrize("ladder", [(0.01,), (0.1, 0.4, 0.12, 0.12)])
def test_along_the_path_weights_have_the_scales_that_the_table_is_of(ladder: tuple[float, ...]) -> None:
    trials = MadeUp(Budget(max_kl=0.09), ladder=ladder)
    searched(trials)
    assert not trials.points[0].configuration.per_channel and along(trials)
    assert all(point.configuration.per_channel for point in along(trials))


def test_without_a_table_the_ladder_is_all() -> None:
    trials = MadeUp(Budget(max_kl=0.15))
    search, _ = searched(trials, table=[])
    assert not along(trials) and search.best is not None and search.best.good


@pytest.mark.parametrize("stops", [2, 3, 4])
def test_what_ends_in_the_middle_keeps_the_best_so_far(stops: int) -> None:
    trials = MadeUp(Budget(max_kl=0.11), stops=stops)
    search, told = searched(trials)
    assert len(trials.points) == stops - 1
    assert search.best is min(trials.points, key=lambda p: (not p.good, p.size if p.good else p.damage)) is told[-1]


def test_the_ladder_builds_on_what_helped_and_ends_where_the_budget_is_met() -> None:
    trials = MadeUp(Budget(max_kl=0.05), ladder=(0.3, 0.1, 0.2, 0.05, 0.01, 0.01))
    searched(trials, "latency")
    assert [point.step for point in trials.points] == ["ladder"] * 4 and trials.points[-1].good
    last = trials.points[-1].configuration
    assert last.per_channel and last.option("WeightCalibrateMethod") == "SeqMSE"
    assert not last.option("BiasCorrection")  # did not help


def test_where_layers_are_chosen_anyway_the_ladder_is_of_what_costs_no_time() -> None:
    for objective in ("size", "balanced"):
        trials = MadeUp(Budget(max_kl=0.03))
        searched(trials, objective)
        assert [point.step for point in trials.points][:5] == ["ladder"] * 4 + ["layers"]


def test_where_latency_counts_integers_that_are_good_enough_are_the_end() -> None:
    trials = MadeUp(Budget(max_kl=0.15))
    search, _ = searched(trials, "latency")
    assert search.table is None and [p.good for p in trials.points] == [False, True]
    worse = MadeUp(Budget(max_kl=0.15), ladder=(0.9,) * 6)
    search, _ = searched(worse, "latency")
    assert search.best is not None and search.best.good and along(worse)


def test_the_knee_is_looked_for_around_that_of_the_table() -> None:
    trials = MadeUp(Budget())
    search, _ = searched(trials)
    assert search.knee and 1 <= len(along(trials)) <= 3 and search.best in along(trials)
    assert len({p.config for p in trials.points}) == len(trials.points)
    assert reason(search, trials.points[0], met=True).startswith("no budget was given: the knee of")


def test_a_model_that_is_a_little_smaller_and_takes_much_longer_is_not_chosen_and_that_is_said() -> None:
    trials = MadeUp(Budget(max_kl=0.03))
    search, _ = searched(trials)
    small, fast = (
        Point(n, "", "layers", "", size=size, time=time) for n, size, time in ((1, 0.25, 2.0), (2, 0.26, 0.4))
    )
    trials.points[:] = small, fast = [replace(p, size=int(p.size * trials.task.float_size)) for p in (small, fast)]
    assert search.cost(fast) < search.cost(small)
    assert reason(search, fast, met=True).startswith("of 2 points about the smallest")
    assert reason(search, small, met=True).startswith("the smallest of 2 points")
