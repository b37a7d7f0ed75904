"""The layers at which ranges are learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import RangeLearning
from quark_onnx.engine.activation_walk import walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.layers import Unit, match
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.tuning_walk import Tell, along, beyond_memory
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.range_learning import bytes_of
from quark_onnx.stages.range_learning.layer_learner import LayerLearner
from quark_onnx.stages.range_learning.learnable_ranges import is_fixed_grid


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
    sites = [site for unit in todo.values() if (site := plan.sites.get(unit.data)) is not None]
    numbers = {name: i for i, name in enumerate(units)}
    learner = LayerLearner(model, todo, readers, numbers, options, {site.group for site in sites})
    open_ends = {site.tensor for site in sites if is_fixed_grid(site)}
    way = partial(walk, model, plan, feeds, todo.keys(), limit=limit, floats=open_ends)
    return along(way, plan, dict.fromkeys(todo, learner), reasons, tell)


def _why_not(model: Model, unit: Unit, plan: Plan) -> str | None:
    """Why nothing is learned at a layer, None if something is."""
    if unit.weight in plan.codes:
        return "its weight is tuned already"
    if unit.data in model.graph.initializers:
        return "its input is a constant"
    if plan.sites[unit.weight].format.block:
        return "its weight has a scale per block: only scales per tensor or channel are learned"
    groups, rows, inputs = unit.geometry.rows(float_of(model, unit.weight)).shape
    return beyond_memory(bytes_of((groups, rows, inputs)))
