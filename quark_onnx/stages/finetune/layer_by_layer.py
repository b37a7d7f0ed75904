"""Fine-tuning: one layer after the other, or each by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.activation_walk import Visitor, walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.tuning_pace import Pace
from quark_onnx.engine.tuning_walk import Tell, along
from quark_onnx.graph import Model
from quark_onnx.stages.finetune.layer_finders import layer_finders
from quark_onnx.stages.finetune.layers_apart import LayersApart, tuned_apart, visited

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
    crew: Crew | None = None,
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
        crew: shares the layers, where these learn apart from each other; with a time limit they are tuned here.
    """
    finders = layer_finders(model, plan, feeds, options, gains)
    by_layer, helps = finders.by_layer, None if judge is None else _Scores(judge)
    if crew is not None and options.parallel and options.time_limit is None and by_layer:
        by_layer = tuned_apart(crew, model, finders, LayersApart(plan, list(feeds), options, gains, limit, counted))
        way: Callable[[Visitor], object] = partial(visited, model, plan, by_layer)
    else:
        start = replace(plan, codes={}, values={}) if options.parallel else plan
        follow = not options.parallel
        way = partial(walk, model, start, feeds, by_layer, limit=limit, follow=follow, counted=counted)
    pace = Pace(finders.expected, options.time_limit)
    return along(way, plan, by_layer, finders.reasons, tell, helps, finders.sharing, pace)


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
