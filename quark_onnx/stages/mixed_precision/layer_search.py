"""Which layers have the narrower types: ranked by what each costs alone, then the longest row that meets the limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from quark_onnx.core.name_patterns import matching
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import MixRecord
from quark_onnx.core.settings.mixed_precision import AUTO, GOALS, Mixing
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.output_judge import run_of
from quark_onnx.engine.switchable_model import Switchable
from quark_onnx.graph import Model
from quark_onnx.numerics.search.prefix_search import last_that_holds
from quark_onnx.stages.mixed_precision.output_score import Score, score_on
from quark_onnx.stages.mixed_precision.type_layout import Layout, layout_of

logger = logging.getLogger("quark_onnx")


@dataclass(frozen=True, eq=False)
class Mixed:
    """The plan with its scales, a record per layer that could move, least harmful first, and warnings."""

    plan: Plan
    records: tuple[MixRecord, ...] = ()
    warnings: tuple[str, ...] = ()


def mix(
    model: Model,
    base: Plan,
    other: Plan,
    settings: Mixing,
    feeds: Sequence[Feed],
    ranged: Callable[[Plan], Plan],
    realize: Callable[[Plan], Model],
    tick: Callable[[int, int], None],
    *,
    narrows: bool,
    fuse: bool = True,
    counted: Counted | None = None,
) -> Mixed:
    """Choose the layers that have the types of `other`.

    Args:
        model: the float model that the plans belong to.
        base, other: sites of the configuration and of the types that layers move to, without scales.
        ranged: completes a plan of sites with scales.
        realize: the quantized model of a plan.
        tick: called as `tick(models scored, models to score)`.
        narrows: `other` has the narrower types.
        fuse: models are scored as onnxruntime runs them, on integer kernels.
        counted: which positions of the outputs are looked at; None: all.

    Raises:
        ConfigError: a layer is named that there is not, or no output can be judged.
    """
    layout = layout_of(model, base, other, narrows=narrows)
    able = _able(model, layout, settings, ranged(layout.plan(layout.layers)))
    if not able:
        return Mixed(ranged(base), warnings=("include_auto_mp: no quantized layer can move, all keep their types",))
    score = score_on(model, feeds, settings, counted)
    return _Search(model, layout, settings, able, score, ranged, realize, tick, fuse).run()


def _able(model: Model, layout: Layout, settings: Mixing, narrow: Plan) -> list[str]:
    """Layers that may move, in order of the graph: those asked for that can be quantized to the narrower types."""
    wanted = set(layout.layers)
    if settings.include_layers:
        wanted = matching(settings.include_layers, wanted, "AutoMixprecision IncludeLayers", "quantized layer")
    wanted -= matching(settings.exclude_layers, layout.layers, "AutoMixprecision ExcludeLayers", "quantized layer")
    types = {node.name: node.op_type for node in model.graph}
    return [n for n in layout.layers if n in wanted and n in narrow.nodes and types[n] in settings.target_op_type]


@dataclass
class _Search:
    """The search and how far it is."""

    model: Model
    layout: Layout
    settings: Mixing
    able: list[str]
    score: Score
    ranged: Callable[[Plan], Plan]
    realize: Callable[[Plan], Model]
    tick: Callable[[int, int], None]
    fuse: bool
    done: int = 0

    def run(self) -> Mixed:
        """Rank, then choose."""
        wide = self._plan(())
        best, alone = self._scored(wide), self._alone(wide)
        ranked = sorted(self.able, key=lambda name: alone[name], reverse=self.settings.more_is_better)
        limit = self.settings.limit(best)
        types = {node.name or "": node.op_type for node in self.model.graph}
        if limit is None:
            records = tuple(MixRecord(name, types[name], alone[name], False) for name in ranked)
            return Mixed(self.ranged(self.layout.base), records)
        count = self._longest(ranked, best, limit)
        narrow = set(ranked[:count])
        records = tuple(MixRecord(n, types[n], alone[n], (n in narrow) == self.layout.narrows) for n in ranked)
        logger.info("mixed precision: %d of %d layers in the narrower types", count, len(ranked))
        return Mixed(self._plan(narrow), records, self._doubts(best, limit))

    def _alone(self, wide: Plan) -> dict[str, float]:
        """The score of the float model with what moves with each layer alone in the narrower types."""
        narrow = self._plan(self.able)
        switchable, found = Switchable(self.model, narrow), {}
        for name in self.able:
            self._tell()
            off = set(switchable.tensors) - self.layout.moved(name, narrow, wide)
            found[name] = self.score(partial(switchable, off=off))
        return found

    def _longest(self, ranked: Sequence[str], best: float, limit: float) -> int:
        """The largest number of first layers that may be narrow together, taking scores to fall with it."""

        def meets(count: int) -> bool:
            return self._meets(self._scored(self._plan(ranked[:count])), limit)

        if not self._meets(best, limit):
            return 0
        return len(ranked) if meets(len(ranked)) else last_that_holds(meets, 0, len(ranked))

    def _plan(self, narrow: Collection[str]) -> Plan:
        """Complete, with these layers narrow, and those that must not move as the configuration has them."""
        fixed = [] if self.layout.narrows else [name for name in self.layout.layers if name not in self.able]
        return self.ranged(self.layout.plan([*narrow, *fixed]))

    def _scored(self, plan: Plan) -> float:
        """The score of what the user would get of a plan."""
        self._tell()
        return self.score(run_of(self.realize(plan), fuse=self.fuse))

    def _tell(self) -> None:
        total = max(len(self.able) + 2 + math.ceil(math.log2(len(self.able))), self.done)
        self.tick(self.done, total)
        self.done += 1

    def _meets(self, score: float, limit: float) -> bool:
        return score >= limit if self.settings.more_is_better else score <= limit

    def _doubts(self, best: float, limit: float) -> tuple[str, ...]:
        """What the user must know of a threshold that the wider types miss, or that follows from little."""
        name = self.settings.metric_default
        reached = f"include_auto_mp: with all layers in the wider types the outputs have {name} {best:.4g}"
        if not self._meets(best, limit):
            asked = f"MetricThreshold asks for {limit:.4g}: all that can have the wider types have them; ask for less"
            return (f"{reached}, and {asked}",)
        if self.settings.metric_threshold == AUTO and limit < GOALS[name]:
            return (f"{reached} only, so {limit:.4g} had to do; wider types, or fine-tuning, may be what helps",)
        return ()
