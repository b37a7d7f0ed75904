"""The fold over the layers: at which ranges are learned, in which order, and what became of each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.range_learning import RangeLearning
from quark_onnx.engine.activation_walk import walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import quarter_of_memory
from quark_onnx.engine.layers import Unit, match
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.range_learning import bytes_of
from quark_onnx.stages.range_learning.layer_learner import LayerLearner, Tell
from quark_onnx.stages.range_learning.learnable_ranges import is_fixed_grid

logger = logging.getLogger("quark_onnx")


def learn(model: Model, plan: Plan, feeds: Sequence[Feed], options: RangeLearning, limit: int, tell: Tell) -> Tuning:
    """Learn ranges, weights and biases; layers whose weight has codes in the plan already are left as they are.

    Args:
        model: the float model that the plan belongs to.
        plan: with ranges, which learning begins with.
        limit: bytes of activations held in memory.
        tell: called as `tell(text, layers done, layers)`.
    """
    units, reasons = match(model, plan, options.target_op_type)
    why = {name: _why_not(model, unit, plan) for name, unit in units.items()}
    reasons |= {name: reason for name, reason in why.items() if reason is not None}
    todo = {name: unit for name, unit in units.items() if why[name] is None}
    readers = Counter(unit.weight for unit in units.values())
    learner = LayerLearner(model, plan, todo, readers, {name: i for i, name in enumerate(units)}, options, tell)
    open_ends = {unit.data for unit in todo.values() if is_fixed_grid(plan.sites.get(unit.data))}
    interrupted = False
    try:
        walk(model, plan, feeds, todo.keys(), learner.visit, limit, floats=open_ends)
    except KeyboardInterrupt:
        interrupted = True
        logger.warning("interrupted: %d of %d layers are learned, the others stay", len(learner.records), len(todo))
    return Tuning(learner.plan, tuple(learner.records), reasons | learner.reasons, interrupted)


def _why_not(model: Model, unit: Unit, plan: Plan) -> str | None:
    """Why nothing is learned at a layer, None if something is."""
    if unit.weight in plan.codes:
        return "its weight is tuned already"
    if unit.data in model.graph.initializers:
        return "its input is a constant"
    groups, rows, inputs = unit.geometry.rows(float_of(model, unit.weight)).shape
    if (needed := bytes_of((groups, rows, inputs))) > 2 * quarter_of_memory():
        return f"it takes {needed >> 20:,} MiB to learn, more than half of the memory"
    return None
