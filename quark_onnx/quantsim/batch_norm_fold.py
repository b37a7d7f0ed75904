"""Folding of BatchNormalization, as a step of its own before a simulation."""

from __future__ import annotations

import logging

from quark_onnx.graph import ModelProto
from quark_onnx.quantsim.returned_model import hand_back
from quark_onnx.quantsim.simulated_model import Source, open_float
from quark_onnx.stages.prepare.batch_norms_only import Folded, fold_batch_norms

logger = logging.getLogger("quark_onnx")


def fold_all_batch_norms(model: Source) -> ModelProto:
    """Fold every BatchNormalization into the layer before it, or else the one behind it; outputs stay what they were.

    A layer keeps its name and that of its output; a graph output keeps its name too. Without a bias it gets one, named
    `<layer>_bias`. What cannot be folded stays, and a warning says why.

    Args:
        model: path, or `onnx.ModelProto`, which is changed in place.

    Returns:
        The folded model: the very object that was given, or a new one for a path.

    Raises:
        ModelError: the model cannot be read, or is quantized already.
    """
    return hand_back(model, folded(model).model)


fold_all_batch_norms_to_weight = fold_all_batch_norms


def folded(source: Source) -> Folded:
    """The user's model, opened and folded; what stays is logged.

    Raises:
        ModelError: it cannot be read, or is quantized already.
    """
    result = fold_batch_norms(open_float(source))
    for node, reason in result.left.items():
        logger.warning("BatchNormalization %r is not folded: %s", node, reason)
    return result
