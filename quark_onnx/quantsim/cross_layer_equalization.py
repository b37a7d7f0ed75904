"""Cross-layer equalization and high-bias folding of the float model, with data or with what BatchNormalizations knew.

Both need to know how far every channel reaches. Data say it exactly, for these data. Without data a channel that came
out of a BatchNormalization is taken for N(β, γ²), which hardly leaves β ± 3|γ| (Nagel et al. 2019, DFQ, §4.1.3). What
does leave it meets a Clip that it did not meet before: prefer data for models with Clips. (MobileNet v1: the float
outputs keep 17 dB without data, 48 dB with 200 images.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.settings.checked_fields import flag, whole
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.graph import ModelProto
from quark_onnx.quantsim.batch_norm_fold import folded
from quark_onnx.quantsim.returned_model import hand_back
from quark_onnx.quantsim.simulated_model import Source
from quark_onnx.stages.equalize import Equalized, equalize, rescale, tensors_needed
from quark_onnx.stages.prepare.batch_norms_only import Folded

logger = logging.getLogger("quark_onnx")

Extremes = dict[str, tuple[NDArray[Any], NDArray[Any]]]

DEVIATIONS = 3
"""How many standard deviations a channel of a BatchNormalization reaches."""

SWEEPS = 20
"""Sweeps over all pairs of layers; nothing moves any more long before."""


def equalize_model(
    model: Source, data: object = None, *, high_bias_folding: bool = True, sweeps: int = SWEEPS
) -> ModelProto:
    """Fold BatchNormalizations, even out the channels of the weights between layers, and move high biases on.

    The outputs stay what they were: to rounding on `data`; without, as far as no channel leaves β ± 3|γ|. AIMET
    replaces every Clip(0, 6) by a Relu. Here a Clip stays, and channels that reach its bound are left alone; so are all
    of them where nothing is known of how far they reach.

    Args:
        model: path, or `onnx.ModelProto`, which is changed in place.
        data: samples that show how far every channel reaches: a reader with `get_next()`, a folder, or any iterable of
            feeds, arrays or tuples. None: BatchNormalizations that are folded now tell it.
        high_bias_folding: False leaves biases where they are.
        sweeps: over all pairs of layers, at most; AIMET does 1.

    Returns:
        The changed model: the very object that was given, or a new one for a path.

    Raises:
        ConfigError, ModelError, DataError: an argument cannot be used.
    """
    absorb, steps = flag("high_bias_folding", high_bias_folding), whole(1)("sweeps", sweeps)
    start = folded(model)
    found = equalize(start.model, _extremes(start, data, absorb=absorb), sweeps=steps, absorb=absorb)
    _tell(found, ("equalize", "absorb") if absorb else ("equalize",))
    return hand_back(model, rescale(start.model, found.factors, found.shifts))


def fold_high_biases(model: Source, data: object = None) -> ModelProto:
    """Fold BatchNormalizations and move high biases on, without equalization; see `equalize_model`."""
    start = folded(model)
    found = equalize(start.model, _extremes(start, data, absorb=True), sweeps=0, absorb=True)
    _tell(found, ("absorb",))
    return hand_back(model, rescale(start.model, {}, found.shifts))


def _extremes(start: Folded, data: object, *, absorb: bool) -> Extremes:
    """How far the channels reach of all tensors for which that counts, as far as it is known."""
    tensors = tensors_needed(start.model, absorb=absorb)
    if data is not None:
        feeds = told(samples_of(start.model, data))
        return channel_extremes(start.model, feeds, tensors, lambda done: None)
    known = {tensor: start.spread[tensor] for tensor in tensors if tensor in start.spread}
    return {t: (beta - DEVIATIONS * gamma, beta + DEVIATIONS * gamma) for t, (beta, gamma) in known.items()}


def _tell(found: Equalized, rules: Sequence[str]) -> None:
    for rule in rules:
        outcomes = [outcome for outcome in found.log if outcome.rule == rule]
        done = sum(outcome.reason is None for outcome in outcomes)
        logger.info("%s: %d of %d layers", rule, done, len(outcomes))
        for outcome in outcomes:
            if outcome.reason is not None:
                logger.info("%s: %r is left as it is: %s", rule, outcome.node, outcome.reason)
