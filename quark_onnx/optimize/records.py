"""What a search tells: every point that was tried, the table of layers, and which point was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.shown.card import GOOD, LOOK, Card, Level, Shown, Tile
from quark_onnx.core.shown.charts import Bar, bars
from quark_onnx.core.shown.figures import NOTHING, number, percent, seconds, share, size, times
from quark_onnx.core.shown.markup import Html
from quark_onnx.core.shown.tables import ROWS, listed, table
from quark_onnx.result import Result

Objective = Literal["size", "latency", "balanced"]
"""What is made small: bytes of weights, time, or both alike."""

FLOAT, BYTES, WORDS, FOURS, EIGHTS = "float", "a8w8", "a16w8", "w4", "w8"
"""Choices of a layer: float; activations in 8 or 16 bits and weights in 8; weights alone in 4 or 8 bits."""


INTEGERS = (BYTES, WORDS)
"""Choices with integer kernels."""


@dataclass(frozen=True)
class LayerOption:
    """One choice of a layer.

    choice  its name, one of the above; of 4 bits also with the size of its blocks, "w4/32"
    damage  at the outputs, where all else is float: see `Optimized.measure`
    bytes   of the weights and their scales
    time    estimated, in multiply-adds of float32; microseconds where `Optimized.clocked`
    """

    choice: str
    damage: float
    bytes: int
    time: float


@dataclass(frozen=True)
class LayerRow:
    """A layer of the table, or several that share one weight.

    nodes    that read the weight, in order of the graph; or one product of activations
    weights  elements of it
    options  the cheapest first
    chosen   the name of that in the chosen point
    followers  nodes between layers that are quantized for the sake of this one, and of others
    """

    nodes: tuple[str, ...]
    op_type: str
    weights: int
    options: tuple[LayerOption, ...]
    chosen: str = ""
    followers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One configuration that was tried.

    number      from 1, in the order of trials
    name        what is special about it, in words
    step        "ladder": the same for all layers; "layers": chosen layer by layer
    config      JSON, see `QuantizationConfig.from_json`; of the samples that taught it makes the same model
    choices     layer → choice, where they were chosen
    size        bytes of the file
    time        estimated, of the float model's
    integers    share of the multiply-adds on integer kernels
    sqnr, kl, agreement  of the worst output on the samples that judge; None: not measured, or no classes
    score       of the evaluator; None: there is none, or it was not asked
    drop        how far that is below the score of the float model
    noise       standard error of the drop, by bootstrap over samples; None: not known
    damage      see `Optimized.measure`
    predicted   damage that the table said; None: it was not asked
    over        what exceeds the budget, in words; empty: it is met
    latency     milliseconds of one run on this machine, (float, quantized); None: not measured
    seconds     that the trial took
    error       why there is no model; everything else is empty then
    """

    number: int
    name: str
    step: Literal["ladder", "layers"]
    config: str
    choices: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    time: float = 0.0
    integers: float = 0.0
    sqnr: float | None = None
    kl: float | None = None
    agreement: float | None = None
    score: float | None = None
    drop: float | None = None
    noise: float | None = None
    damage: float | None = None
    predicted: float | None = None
    over: tuple[str, ...] = ()
    latency: tuple[float, float] | None = None
    seconds: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether there is a model, and it is within the budget."""
        return not self.over and not self.error

    @property
    def configuration(self) -> QuantizationConfig:
        """The configuration itself."""
        return QuantizationConfig.from_json(self.config)


@dataclass(frozen=True)
class Trial:
    """What is told when a trial begins, and when the best so far changes.

    number  of the trial, from 1
    name    what is tried, in words
    best    the best point so far
    left    seconds until the time limit; None: there is none
    """

    number: int
    name: str
    best: Point | None = None
    left: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Optimized(Shown):
    """The outcome of `optimize`.

    objective   what was made small
    budget      what was asked for, by key; empty: the knee of the curve was
    met         whether the chosen point is within the budget
    reason      why this point was chosen, in a sentence
    blame       where the budget is not met: what stood in the way, a sentence each
    advice      how to ask for the next better or the next smaller one, a command each
    points      all that were tried, in order
    chosen      number of the point that was written
    rows        the table of layers, in order of the graph; empty where it was not needed
    measure     what damage is: "kl" in nats, where all outputs hold classes; or "noise" / signal of the worst output
    float_size, float_score  bytes of the float model's file, and its score
    clocked     whether the times of the table were measured on this machine
    samples     (that taught, that judged)
    stopped     whether Ctrl-C or the time limit ended it early, in words; empty: neither
    warnings    what the user should know
    timed       those of them that rest on times of this machine, and so may be others in another run
    seconds     of the whole search
    result      of the chosen point: plan, model, report
    output      the written file
    """

    objective: Objective
    budget: Mapping[str, Any]
    met: bool
    reason: str
    points: tuple[Point, ...]
    chosen: int
    measure: Literal["kl", "noise"]
    float_size: int
    result: Result = field(repr=False)
    blame: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    rows: tuple[LayerRow, ...] = ()
    float_score: float | None = None
    clocked: bool = False
    samples: tuple[int, int] = (0, 0)
    stopped: str = ""
    warnings: tuple[str, ...] = ()
    timed: tuple[str, ...] = ()
    seconds: float = 0.0
    output: Path | None = None

    @property
    def point(self) -> Point:
        """The chosen one."""
        return next(point for point in self.points if point.number == self.chosen)

    @property
    def front(self) -> tuple[Point, ...]:
        """The points that no other one beats in both damage and size (for latency: time), the smallest first."""
        cost = (lambda point: point.time) if self.objective == "latency" else (lambda point: float(point.size))
        known = sorted(
            (p for p in self.points if p.damage is not None and not p.error), key=lambda p: (cost(p), p.damage)
        )
        found: list[Point] = []
        for point in known:
            if not found or (point.damage or 0.0) < (found[-1].damage or 0.0):
                found.append(point)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without the model and its report."""
        left_out = ("result",)
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        plain |= {"points": [asdict(p) for p in self.points], "rows": [asdict(r) for r in self.rows]}
        return plain | {"front": [point.number for point in self.front], "output": self.output and str(self.output)}

    def _card(self) -> Card:
        best = self.point
        tiles = [
            Tile("Size", size(best.size), share(best.size, self.float_size)),
            Tile("Estimated time", times(best.time or None), "of the float model's"),
            Tile("On integers", percent(best.integers), "of the multiply-adds"),
            *(Tile(name, figure) for name, figure in _figures(best) if figure),
            Tile("Search", seconds(self.seconds), f"{len(self.points):,} points tried"),
        ]
        sections = (
            listed([text for text in (self.stopped, *self.blame, *self.warnings) if text]),
            _front_table(self.front, self.chosen),
            _damage_chart(self.rows),
            listed(self.advice),
        )
        title = f"Search for {'the best balance' if self.objective == 'balanced' else f'the least {self.objective}'}"
        level: Level = "" if not self.budget else "good" if self.met else "poor"
        verdict = "" if not self.budget else GOOD if self.met else LOOK
        return Card(title, verdict, self.reason, tiles, sections, level)


def _figures(point: Point) -> list[tuple[str, str]]:
    """What is known of the accuracy of a point; empty where it was not measured."""
    known = (("KL", point.kl), ("SQNR, dB", point.sqnr), ("Score", point.score), ("Lower by", point.drop))
    return [(name, "" if figure is None else number(figure)) for name, figure in known]


def _front_table(points: tuple[Point, ...], chosen: int) -> Html:
    """The points that no other one beats, and which was chosen."""
    rows = [
        (
            f"{point.number}: {point.name}" + ", chosen" * (point.number == chosen),
            size(point.size),
            times(point.time or None),
            *(figure or NOTHING for _, figure in _figures(point)[:2]),
        )
        for point in points[:ROWS]
    ]
    columns = ("Point", "Size", "Time", "KL", "SQNR, dB")
    return table("Points that no other one beats", columns, rows, len(points), numbers=columns[1:])


def _damage_chart(rows: tuple[LayerRow, ...]) -> Html:
    """What the table says that the choice of each layer harms, the worst first."""
    known = [(option, row) for row in rows for option in row.options if option.choice == row.chosen]
    total = sum(option.damage for option, _ in known) or 1.0
    worst = sorted(known, key=lambda one: -one[0].damage)
    found = [
        Bar(row.nodes[0], option.damage / total, f"{option.choice}, {percent(option.damage / total)}")
        for option, row in worst[:ROWS]
    ]
    return bars("Layers: their choice, and its part of the damage", found, len(worst))
