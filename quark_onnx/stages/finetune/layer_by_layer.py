"""The fold over the layers: which are tuned, in which order, and what became of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.activation_walk import walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import quarter_of_memory
from quark_onnx.engine.layers import Unit, match
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant
from quark_onnx.numerics.layer.sampling import bytes_of
from quark_onnx.stages.finetune.layer_statistics import KEPT
from quark_onnx.stages.finetune.layer_tuner import LayerTuner, Tell
from quark_onnx.stages.finetune.normalizations import NORMS, match_norms

Array = NDArray[Any]
logger = logging.getLogger("quark_onnx")


def finetune(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    options: FastFinetune,
    gains: Mapping[str, Array],
    limit: int,
    tell: Tell,
    judge: Callable[[Plan], float] | None = None,
) -> Tuning:
    """Tune every layer that can be; layers that the plan already has codes for are left as they are (resuming).

    Args:
        model: the float model that the plan belongs to.
        options: method and settings; `Nearest` learns no rounding.
        gains: importance per channel of tensors, see `channel_importance`.
        limit: bytes of activations held in memory.
        tell: called as `tell(text, layers done, layers)`.
        judge: score of the whole model under a plan, higher is better; a layer that lowers it is not changed.
    """
    units, reasons = match(model, plan, [kind for kind in options.target_op_type if kind not in NORMS])
    norms, others = match_norms(model, plan, options)
    reasons |= others
    large = {name: _why_large(model, unit, options) for name, unit in units.items()}
    reasons |= {name: reason for name, reason in large.items() if reason is not None}
    todo = {name: unit for name, unit in units.items() if unit.weight not in plan.codes and large[name] is None}
    numbers = {name: i for i, name in enumerate(units)}  # not of `todo`: a resumed run draws what the first would have
    tuner = LayerTuner(model, plan, todo, numbers, options, gains, tell, judge, norms)
    start = replace(plan, codes={}, values={}) if options.parallel else plan
    interrupted = False
    try:
        walk(model, start, feeds, todo.keys() | norms.keys(), tuner.visit, limit, follow=not options.parallel)
    except KeyboardInterrupt:
        interrupted = True
        logger.warning("interrupted: %d of %d layers are tuned, the others stay as they were", tuner.done, len(todo))
    return Tuning(tuner.plan, tuple(tuner.records), reasons | tuner.reasons, interrupted)


def _why_large(model: Model, unit: Unit, options: FastFinetune) -> str | None:
    """Why the layer is too large to be tuned: its sums grow with the square of its inputs. None if it is not."""
    array = constant(model.graph.initializers[unit.weight])
    assert array is not None
    groups, rows, inputs = unit.geometry.rows(array).shape
    needed = bytes_of((groups, rows, inputs), options.positions, KEPT)
    if needed <= 2 * quarter_of_memory():
        return None
    return f"it takes {needed >> 20:,} MiB to tune, more than half of the memory; fewer positions may help"
