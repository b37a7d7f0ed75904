"""Which layers are tuned, and what finds something better for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.activation_walk import walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.kept_feeds import samples_in
from quark_onnx.engine.layers import Unit, match
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.tuning_pace import Pace
from quark_onnx.engine.tuning_walk import Finder, Tell, along, beyond_memory
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.sampling import bytes_of
from quark_onnx.stages.finetune.bias_fit import BiasFit
from quark_onnx.stages.finetune.expected_seconds import expected_seconds, positions_of
from quark_onnx.stages.finetune.layer_statistics import KEPT
from quark_onnx.stages.finetune.normalizations import NORMS, NormFit, match_norms
from quark_onnx.stages.finetune.tuned_layers import TunedLayers
from quark_onnx.stages.finetune.weight_tuner import WeightTuner

Array = NDArray[Any]


def finetune(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    options: FastFinetune,
    gains: Mapping[str, Array],
    limit: int,
    tell: Tell,
    judge: Callable[[Plan], float] | None = None,
    counted: Counted | None = None,
) -> Tuning:
    """Tune every layer that can be; layers that the plan already has codes for are left as they are (resuming).

    Args:
        model: the float model that the plan belongs to.
        options: method and settings; `Nearest` learns no rounding.
        gains: importance per channel of tensors, see `channel_importance`.
        limit: bytes of activations held in memory.
        tell: called as `tell(text, layers done, layers)`.
        judge: score of the whole model under a plan, higher is better; a layer that lowers it is not changed.
        counted: which positions of the samples count; None: all.
    """
    units, reasons = match(model, plan, [kind for kind in options.target_op_type if kind not in NORMS])
    norms, others = match_norms(model, plan, options)
    rows = {name: unit.geometry.rows(float_of(model, unit.weight)).shape for name, unit in units.items()}
    large = {name: _why_large(rows[name], options) for name in units}
    reasons |= others | {name: reason for name, reason in large.items() if reason is not None}
    todo = {name: unit for name, unit in units.items() if unit.weight not in plan.codes and large[name] is None}
    numbers = {name: i for i, name in enumerate(units)}  # not of `todo`: a resumed run draws what the first would have
    layers = TunedLayers(model, todo, numbers, options, gains)
    weights = not isinstance(options, Nearest) or options.scale_search
    finders: dict[str, Finder] = dict.fromkeys(todo, WeightTuner(layers) if weights else BiasFit(layers))
    finders |= dict.fromkeys(norms, NormFit(model, norms, options))
    start = replace(plan, codes={}, values={}) if options.parallel else plan
    way = partial(walk, model, start, feeds, finders.keys(), limit=limit, follow=not options.parallel, counted=counted)
    helps = None if judge is None else _Scores(judge)
    samples = len(feeds) * samples_in(feeds[0]) if feeds else 0
    expected = {name: _expected(unit, rows[name], plan, options, samples) for name, unit in todo.items()}
    pace = Pace(expected, options.time_limit)
    return along(way, plan, finders, reasons, tell, helps, layers.sharing() if weights else None, pace)


@dataclass
class _Scores:
    """Whether the whole model gets no worse by another plan."""

    judge: Callable[[Plan], float]
    best: float = -math.inf

    def __call__(self, before: Plan, after: Plan) -> bool:
        if self.best == -math.inf:
            self.best = self.judge(before)
        score = self.judge(after)
        helps = score >= self.best
        self.best = score if helps else self.best
        return helps


def _why_large(rows: tuple[int, int, int], options: FastFinetune) -> str | None:
    """Why a layer is too large to be tuned: its sums grow with the square of its inputs. None if it is not."""
    why = beyond_memory(bytes_of(rows, options.positions, KEPT))
    return None if why is None else f"{why}; fewer positions may help"


def _expected(unit: Unit, rows: tuple[int, int, int], plan: Plan, options: FastFinetune, samples: int) -> float:
    """Seconds that a layer will take."""
    return expected_seconds(rows, positions_of(unit, rows, samples), options, plan.sites[unit.weight].format.bits)
