"""The chart of a search: every point that was tried, cost against damage. Geometry only; the template draws it.

Left and down is better. Where damage spans more than a decade its axis is logarithmic; what an axis cannot hold (0,
infinity) lies on its edge. Texts stand where they cover nothing; the number of a point that has no room is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 14.0, 34.0, HEIGHT - 52.0
RADIUS, RING, LETTER, LINE = 5.0, 9.0, 9.0, 16.0
"""Of a point, and around the chosen one; width of a letter and height of a line in the font of charts."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    name  with its unit
    unit  in that of the values: 1000 for kB
    log   whether the axis is logarithmic where values span more than a decade; it begins at 0 otherwise
    """

    name: str
    unit: float = 1.0
    log: bool = False


@dataclass(frozen=True)
class Tried:
    """A point: cost, damage, what it says, whether it is within the budget, whether it is the chosen one."""

    number: int
    x: float
    y: float
    text: str
    within: bool = True
    chosen: bool = False


@dataclass(frozen=True)
class Dot:
    """A point as it is drawn."""

    x: float
    y: float
    tried: Tried

    @property
    def reach(self) -> float:
        """How far its mark goes."""
        return RING if self.tried.chosen else RADIUS


@dataclass(frozen=True)
class Label:
    """A text as it is drawn: `y` is that of its base line."""

    x: float
    y: float
    text: str
    anchor: Anchor = "middle"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, top, bottom."""
        wide = LETTER * len(self.text)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, left + wide, self.y - LINE + 3, self.y + 3


@dataclass(frozen=True)
class Pareto:
    """The chart.

    dots    the chosen one last, so that nothing covers it
    line    points that no other one beats in both, the cheapest first
    limit   y of the budget; None: it is not on this chart
    labels  numbers of points, and what the limit is
    """

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    line: str
    limit: float | None
    labels: tuple[Label, ...]
    x_ticks: tuple[Label, ...]
    y_ticks: tuple[Label, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: float = LEFT
    right: float = RIGHT
    bottom: float = BOTTOM


def pareto(tried: Sequence[Tried], x: Axis, y: Axis, limit: tuple[float, str] | None = None) -> Pareto | None:
    """The chart; None where there is nothing to draw.

    Args:
        tried: those with a NaN, or infinite costs, are left out.
        limit: damage that the budget allows, and what to call it.
    """
    tried = [one for one in tried if math.isfinite(one.x) and not math.isnan(one.y)]
    if not tried:
        return None
    across = _Scale.of([one.x for one in tried], log=False)
    up = _Scale.of([one.y for one in tried] + ([limit[0]] if limit else []), log=y.log)
    dots = [Dot(*_place(across.at(one.x), up.at(one.y)), one) for one in sorted(tried, key=lambda one: one.chosen)]
    best = front([(one.x, one.y) for one in tried])
    drawn = None if limit is None else _place(0.0, up.at(limit[0]))[1]
    called = "" if limit is None else limit[1]
    return Pareto(
        x,
        y,
        tuple(dots),
        " ".join("{},{}".format(*_place(across.at(cost), up.at(damage))) for cost, damage in best),
        drawn,
        tuple(_labels(dots, best, drawn, called)),
        tuple(Label(_place(at, 0.0)[0], BOTTOM + 20, text) for at, text in across.ticks(x.unit, 5)),
        tuple(Label(LEFT - 7, _place(0.0, at)[1] + 5, text, "end") for at, text in up.ticks(y.unit, 6)),
    )


def front(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other one beats in both, ordered by the first."""
    found: list[tuple[float, float]] = []
    for pair in sorted(pairs):
        if math.isfinite(pair[1]) and (not found or pair[1] < found[-1][1]):
            found.append(pair)
    return found


def _place(x: float, y: float) -> tuple[float, float]:
    return round(LEFT + (RIGHT - LEFT) * x, 1), round(BOTTOM - (BOTTOM - TOP) * y, 1)


@dataclass(frozen=True)
class _Scale:
    """Values, or logarithms of them to the base of 10, → 0 … 1."""

    lo: float
    hi: float
    log: bool

    @classmethod
    def of(cls, values: Sequence[float], *, log: bool) -> _Scale:
        """The scale that holds all finite values, with room at its ends."""
        known = sorted(value for value in values if math.isfinite(value) and (value > 0 or not log)) or [1.0]
        lo, hi = known[0], known[-1]
        wide = log and hi > 10 * lo
        if wide:
            lo, hi = math.log10(max(lo, hi * 1e-6)), math.log10(hi)
        elif log:
            return cls(0.0, 1.1 * hi, False)
        room = 0.08 * ((hi - lo) or abs(hi) or 1.0)
        return cls(lo - room, hi + room, wide)

    def at(self, value: float) -> float:
        if self.log:
            value = math.log10(value) if value > 0 else -math.inf
        return min(max((value - self.lo) / (self.hi - self.lo), 0.0), 1.0)

    def ticks(self, unit: float, most: int) -> Iterator[tuple[float, str]]:
        """(place, text), `most` of them at most."""
        if self.log:
            yield from ((self.at(tick), f"{tick / unit:g}") for tick in self._decades(most))
            return
        least = (self.hi - self.lo) / unit / most
        power = math.floor(math.log10(least))
        step = next(m * 10.0**power for m in (1, 2, 5, 10) if m * 10.0**power >= least)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        for tick in range(math.ceil(self.lo / unit / step), math.floor(self.hi / unit / step) + 1):
            yield self.at(tick * step * unit), f"{tick * step:.{digits}f}"

    def _decades(self, most: int) -> list[float]:
        exponents = range(math.floor(self.lo), math.floor(self.hi) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            found = [part * 10.0**exponent for exponent in exponents for part in parts]
            found = [tick for tick in found if self.lo <= math.log10(tick) <= self.hi]
            if len(found) <= most:
                break
        return found[:: math.ceil(len(found) / most)]


def _labels(
    dots: Sequence[Dot], best: Sequence[tuple[float, float]], limit: float | None, called: str
) -> Iterator[Label]:
    """What the limit is, then numbers: of the chosen point, of the front, of the others."""
    taken = [(d.x - d.reach, d.x + d.reach, d.y - d.reach, d.y + d.reach) for d in dots]
    if limit is not None:
        steps = [RIGHT - 4 - (RIGHT - LEFT) * part / 8 for part in range(7)]
        places = [Label(round(x, 1), limit + dy, called, "end") for x in steps for dy in (-6, LINE)]
        label = next((one for one in places if _free(one, taken)), places[0])
        taken += [label.box, (LEFT, RIGHT, limit - 1, limit + 1)]
        yield label
    on_front = {dot.tried.number for dot in dots if (dot.tried.x, dot.tried.y) in best}
    for dot in sorted(dots, key=lambda dot: (not dot.tried.chosen, dot.tried.number not in on_front)):
        found = next((one for one in _beside(dot) if _free(one, taken)), None)
        if found is not None:
            taken.append(found.box)
            yield found


def _beside(dot: Dot) -> Iterator[Label]:
    """Places for the number of a point: right above, then all around."""
    text, away = str(dot.tried.number), dot.reach
    sides: tuple[tuple[float, Anchor], ...] = ((away + 1, "start"), (-away - 1, "end"), (0.0, "middle"))
    for dx, anchor in sides:
        for dy in (-away - 4, away + LINE - 2, 4):
            if dx or dy != 4:
                yield Label(round(dot.x + dx, 1), round(dot.y + dy, 1), text, anchor)


def _free(label: Label, taken: Sequence[tuple[float, float, float, float]]) -> bool:
    """Whether it covers nothing and is on the chart."""
    left, right, top, bottom = label.box
    inside = left >= LEFT and right <= WIDTH and top >= TOP - LINE + 2 and bottom <= BOTTOM
    return inside and not any(left < box[1] and right > box[0] and top < box[3] and bottom > box[2] for box in taken)
