"""The search: up the ladder until the budget is met, then along the path of layers to where it is just met.

ladder   the same for all layers; a technique stays if the judges lose less with it
table    one look at every choice of every layer (`layer_table`)
path     its prefixes are ordered by damage and by cost: a whole run corrects what the table says, and the next
         one is the cheapest prefix that should be within the budget; five runs at most
knee     without a budget: the point of the front that lies farthest below the line between its ends
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.ladder import Ladder
from quark_onnx.optimize.layer_choices import with_choices
from quark_onnx.optimize.layer_table import OF_MODELS, LayerTable, summary
from quark_onnx.optimize.records import LayerRow, Objective, Point
from quark_onnx.optimize.rungs import Rung, for_layers
from quark_onnx.optimize.trials import Trials

RUNS = 5
"""Whole runs along the path, at most."""

TUNED = 0.6
"""Part of what the table says that is left by tuned rounding: .1 of the worst mixtures of MobileNet, .4 to .9 of those
near a budget, there and on ResNet-20. For the first guess alone: what runs show counts from then on."""

BOLDER = 4
"""Times less is aimed at after each run but the first that is still too bad: some scores fall by steps, and some
outputs are not what the table has seen."""

CLOSE = 0.9
"""Of the budget is aimed at: a table is no better than that."""

TINY = 1e-30

UNNOTICED = 1e-3
"""Damage that nobody notices: noise at 30 dB, or a divergence with which one answer of a hundred differs."""

WORTH = 0.02
"""Of the cost: what a further run has to promise."""


@dataclass
class Search:
    """What is searched for, and how far it is.

    trials     runs configurations
    objective  what is made small
    table_of   makes the table, for a configuration in 8 bits
    better     told of every point that is the best so far
    """

    trials: Trials
    objective: Objective
    table_of: Callable[[QuantizationConfig], Sequence[LayerRow]]
    better: Callable[[Point], None]
    table: LayerTable | None = None
    best: Point | None = None
    runs: dict[int, Point] = field(default_factory=dict)

    @property
    def knee(self) -> bool:
        """Whether there is no budget."""
        return not self.trials.task.budget

    def run(self, bottom: QuantizationConfig, rungs: Sequence[Rung]) -> None:
        """All of it.

        Raises:
            Stopped: it ended early; `best` is what there is.
        """
        config = self._climb(bottom, rungs)
        if self.objective == "latency" and not self.knee and self.best is not None and self.best.good:
            return  # integer kernels everywhere: nothing is faster
        plain = next((rung.change(bottom) for rung in rungs if rung.plain), bottom)
        self.table = LayerTable.of(self.table_of(plain), self.objective)
        if not self.table.rows:
            return
        config = for_layers(replace(config, per_channel=plain.per_channel))  # as the table has it
        self._bend(config) if self.knee else self._bisect(config)

    def _climb(self, bottom: QuantizationConfig, rungs: Sequence[Rung]) -> QuantizationConfig:
        """Up the ladder: the configuration with the techniques that helped, in 8 bits."""
        held: dict[int, tuple[QuantizationConfig, str]] = {}

        def attempt(rung: tuple[QuantizationConfig, str]) -> Point | None:
            point = self._tried(self.trials.run(rung[1], "ladder", rung[0]))
            held[point.number] = rung
            return None if point.error else point

        def upwards() -> Iterator[tuple[QuantizationConfig, str]]:
            yield bottom, "8 bits, one scale per weight"
            for rung in rungs:
                config, name = (bottom, "8 bits") if ladder.best is None else held[ladder.best.number]
                yield rung.change(config), rung.named(name)

        ladder = Ladder(
            attempt,
            better=lambda new, old: (new.damage or 0.0) < (old.damage or 0.0),
            enough=lambda best: best.good and not self.knee,
        )
        best = ladder.climb(upwards())
        return bottom if best is None else held[best.number][0]

    def _bend(self, config: QuantizationConfig) -> None:
        """Where the table has the knee, and to both sides of it."""
        table = self._table
        middle = bent([(table.cost(n), table.damage(n)) for n in range(table.steps + 1)])
        for count in dict.fromkeys([middle, middle // 2, (middle + table.steps) // 2]):
            self._at(config, count)

    def _bisect(self, config: QuantizationConfig) -> None:
        """To the cheapest prefix within the budget."""
        table = self._table
        low, high = -1, table.steps + 1  # what is known to be too bad, and to be good enough
        while len(self.runs) < RUNS and high - low > 1:
            count = self._guess(low, high)
            if high <= table.steps and table.cost(high) - table.cost(count) < WORTH * table.cost(high):
                break
            point = self._at(config, count)
            low, high = (low, count) if point.good else (count, high)

    @property
    def _table(self) -> LayerTable:
        assert self.table is not None
        return self.table

    def _at(self, config: QuantizationConfig, count: int) -> Point:
        """A run, after so many steps of the path."""
        point = self.runs[count] = self._chosen(config, self._table.choices(count), self._table.damage(count))
        return point

    def _chosen(self, config: QuantizationConfig, choices: Mapping[str, str], predicted: float | None) -> Point:
        mixed = with_choices(config, self._table.rows, choices)
        return self._tried(self.trials.run(summary(choices), "layers", mixed, choices, predicted))

    @property
    def _known(self) -> dict[int, float]:
        """Steps of the path → what a run with them loses, of what it may lose."""
        return {count: self.trials.ratios[point.number] for count, point in self.runs.items()}

    def _guess(self, low: int, high: int) -> int:
        """The cheapest prefix between both that should be within the budget."""
        table = self._table
        between = range(low + 1, min(high, table.steps + 1))
        known = self._known
        if any(math.isinf(excess) for excess in known.values()):
            return between[len(between) // 2]
        misses = len(known) if high > table.steps else 1
        aim = CLOSE / BOLDER ** max(0, misses - 1)
        return next((count for count in between if self._expected(count, known) <= aim), between[-1])

    def _expected(self, count: int, known: Mapping[int, float]) -> float:
        """Excess of a prefix: what the table says, on the scale that the runs around it show."""
        said = self._table.damage(count)
        ratios = {n: excess / max(self._table.damage(n), TINY) for n, excess in known.items()}
        below = max((n for n in known if n < count), default=None)
        above = min((n for n in known if n > count), default=None)
        if below is None or above is None:
            scale = next((ratios[n] for n in (below, above) if n is not None), TUNED * self._first_scale())
            return said * scale
        part = (count - below) / (above - below)
        return said * math.exp((1 - part) * math.log(ratios[below]) + part * math.log(ratios[above]))

    def _first_scale(self) -> float:
        """Excess for the damage that is measured, as the ladder shows it: its point that is nearest to the budget."""
        found = [
            (abs(math.log(self.trials.ratios[p.number])), self.trials.ratios[p.number] / p.damage)
            for p in self.trials.points
            if p.damage and math.isfinite(p.damage) and math.isfinite(self.trials.ratios[p.number])
        ]
        return min(found, default=(0.0, 1.0))[1]

    def _tried(self, point: Point) -> Point:
        """The point; the best of all is told where it is another one."""
        usable = [one for one in self.trials.points if not one.error]
        best = None if not usable else knee_of(usable, self.cost) if self.knee else min(usable, key=self._rank)
        if best is not None and best is not self.best:
            self.best, self.trials.best = best, best.config
            self.better(best)
        return point

    def _rank(self, point: Point) -> tuple[float, float, float]:
        """The less the better: within the budget, then what it costs; else how far it is from it."""
        if point.good:
            return 0.0, self.cost(point), point.damage or 0.0
        return 1.0, self.trials.ratios[point.number], self.cost(point)

    def cost(self, point: Point) -> float:
        """Of a point: its file, in the first one of 8 bits, and its time, in that of the float model."""
        by_bytes, by_time = OF_MODELS[self.objective]
        eight = next((one.size for one in self.trials.points if one.size), 1)
        return by_bytes * point.size / eight + by_time * point.time


def knee_of(points: Sequence[Point], cost: Callable[[Point], float]) -> Point:
    """The point that lies farthest below the line between the cheapest and the most accurate one."""
    known = [p for p in points if p.damage is not None and math.isfinite(p.damage)] or list(points)
    ordered = sorted(known, key=lambda p: (cost(p), p.damage or 0.0))
    return ordered[bent([(cost(p), p.damage or 0.0) for p in ordered])]


def bent(curve: Sequence[tuple[float, float]]) -> int:
    """Index of the knee of a curve of costs, ascending, and damages: farthest below its chord, damages as logarithms.

    Damages that nobody notices count as `UNNOTICED`. Where none lies below, it is the end that does least damage: a
    smaller one would do much more.
    """
    ys = [math.log(max(damage, UNNOTICED)) for _, damage in curve]
    xs = [cost for cost, _ in curve]
    last = ys.index(min(ys))  # the cheapest that is as good as any
    wide, high = xs[last] - xs[0], ys[0] - ys[last]
    if wide <= 0 or high <= 0:
        return last
    below = [1 - (x - xs[0]) / wide - (y - ys[last]) / high for x, y in zip(xs[: last + 1], ys, strict=False)]
    return max(range(last + 1), key=lambda i: (below[i], i))
