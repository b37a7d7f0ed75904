"""The layers that can be tuned, and what finds something better for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import samples_in
from quark_onnx.engine.layers import match
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.tuning_walk import Finder, beyond_memory
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.sampling import bytes_of
from quark_onnx.stages.finetune.bias_fit import BiasFit
from quark_onnx.stages.finetune.expected_seconds import expected_seconds, passing_seconds, positions_of
from quark_onnx.stages.finetune.layer_statistics import KEPT
from quark_onnx.stages.finetune.normalizations import NORMS, NormFit, match_norms
from quark_onnx.stages.finetune.tuned_layers import TunedLayers
from quark_onnx.stages.finetune.weight_tuner import WeightTuner

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Finders:
    """What is to be tuned.

    by_layer  what finds something better for a layer, by its name
    reasons   why other layers are left out
    expected  seconds of a layer with a weight
    passing   those of them that samples take to pass through it
    sharing   layers that read the same weight as a layer; None: no weight is tuned
    """

    by_layer: Mapping[str, Finder]
    reasons: Mapping[str, str]
    expected: Mapping[str, float]
    passing: Mapping[str, float]
    sharing: Mapping[str, Collection[str]] | None


def layer_finders(
    model: Model, plan: Plan, feeds: Sequence[Feed], options: FastFinetune, gains: Mapping[str, Array]
) -> Finders:
    """For the layers of a model; those that the plan already has codes for are left as they are (resuming).

    Arguments are those of `finetune`.
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
    samples = len(feeds) * samples_in(feeds[0]) if feeds else 0
    seen = {name: positions_of(unit, rows[name], samples) for name, unit in todo.items()}
    bits = {name: plan.sites[unit.weight].format.bits for name, unit in todo.items()}
    expected = {name: expected_seconds(rows[name], seen[name], options, bits[name]) for name in todo}
    passing = {name: passing_seconds(rows[name], seen[name] or 0) for name in todo}
    by_layer = {node.name: finders[node.name] for node in model.graph if node.name in finders}
    return Finders(by_layer, reasons, expected, passing, layers.sharing() if weights else None)


def _why_large(rows: tuple[int, int, int], options: FastFinetune) -> str | None:
    """Why a layer is too large to be tuned: its sums grow with the square of its inputs. None if it is not."""
    why = beyond_memory(bytes_of(rows, options.positions, KEPT))
    return None if why is None else f"{why}; fewer positions may help"
