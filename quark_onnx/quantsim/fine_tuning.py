"""Fine-tuning of a simulation: weights, and with range learning the ranges, layer by layer against the float model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import LayerRecord, Tuning
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound, FastFinetune, RangeLearning
from quark_onnx.engine.activation_store import ROOM
from quark_onnx.engine.calibration_data import Feed, told
from quark_onnx.engine.counted_positions import bare
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.graph import Model
from quark_onnx.progress import followed
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulated_grids import raised
from quark_onnx.quantsim.simulation import simulated
from quark_onnx.quantsim.wide_grids import apart, together
from quark_onnx.stages.channel_importance import channel_importance
from quark_onnx.stages.finetune import finetune
from quark_onnx.stages.range_learning import learn

logger = logging.getLogger("quark_onnx")

Options: TypeAlias = "AdaRound | AdaQuant | RangeLearning"
Gains = Mapping[str, NDArray[Any]]


@told_as_such()
def fine_tune(sim: QuantizationSimModel, inputs: object, options: Options | None = None) -> tuple[LayerRecord, ...]:
    """Train the weights of the layers of a simulation, and their biases, against the float model.

    What was trained has its encoding frozen afterwards, and the float model of the simulation has the new numbers.
    Layers that held-out samples see no gain in stay as they are, and so do those that a `time_limit` leaves over.

    Args:
        sim: with encodings; changed in place, or not at all.
        inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples.
        options: method and settings; None: `RangeLearning()` if the scheme is one of those that learn ranges, else
            `AdaQuant()`.

    Returns:
        A record per layer.

    Raises:
        ConfigError: a quantizer has no encoding, or `options` are none.
        DataError: the samples do not fit the model.
        KeyboardInterrupt: it was interrupted; nothing has changed then.
    """
    simulated(sim)
    if options is None:
        options = RangeLearning() if sim.quant_scheme.learns else AdaQuant()
    if not isinstance(options, (AdaRound, AdaQuant, RangeLearning)):
        raise ConfigError(f"options must be an AdaRound, an AdaQuant or a RangeLearning, not {options!r}")
    feeds = keep(told(samples_of(sim.float_model, inputs, limit=options.data_size)))
    done = tune(sim, feeds, options)
    for node, reason in done.reasons.items():
        logger.info("%r is not tuned: %s", node, reason)
    return done.records


def tune(
    sim: QuantizationSimModel, feeds: Sequence[Feed], options: FastFinetune | RangeLearning, fixed: Collection[str] = ()
) -> Tuning:
    """Train the weights of a simulation, which has the new numbers then.

    Args:
        fixed: weights that stay as they are, rounded to nearest.

    Raises:
        ConfigError: a quantizer has no encoding.
        KeyboardInterrupt: it was interrupted; nothing has changed then.
    """
    plan = sim.plan
    kept = {tensor: codes for tensor, codes in plan.codes.items() if tensor in fixed}
    done = tuned(sim.float_model, replace(plan, codes=kept), feeds, options)
    sim.adopt(replace(done.plan, codes={t: codes for t, codes in done.plan.codes.items() if t not in kept}))
    return done


def tuned(
    model: Model, plan: Plan, feeds: Sequence[Feed], options: FastFinetune | RangeLearning, gains: Gains | None = None
) -> Tuning:
    """What fine-tuning makes of a plan, in an operator set that has its formats.

    Args:
        model: the float model of a simulation.
        plan: with ranges; weights that have integers already stay, and so do grids of more than 16 bits.
        feeds: what of them is padding teaches nothing, where they can be cut.
        gains: importance per channel of tensors; None: see `channel_importance`. Range learning has none.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    split = apart(model, plan)
    narrow, begun = raised(split.model, split.plan)
    feeds = bare(narrow, feeds)

    with followed(None) as show:

        def tell(text: str, done: int, layers: int) -> None:
            logger.info("%s, %d of %d layers", text, done, layers)
            show(f"tune {text}", done, layers)

        if isinstance(options, RangeLearning):
            done = learn(narrow, begun, feeds, options, ROOM, tell)
        else:
            importance = channel_importance(narrow) if gains is None else gains
            done = finetune(narrow, begun, feeds, options, importance, ROOM, tell)
    if done.interrupted:
        raise KeyboardInterrupt
    if done.late:
        logger.warning("no time is left after %d of %d layers, %s; the others stay", done.done, done.layers, done.late)
    return replace(done, plan=together(done.plan, plan))
