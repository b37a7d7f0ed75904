"""A share of the layers, those that suffer most from quantization, in another precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import real
from quark_onnx.quantsim.common.defs import as_qtype, float16, qtype
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulation import simulated

Precision: TypeAlias = "qtype | str | tuple[qtype | str, qtype | str]"


def flip_layers_to_higher_precision(
    sim: QuantizationSimModel,
    layer_sensitivity_dict: Mapping[str, float],
    percent_to_flip: float = 10.0,
    override_precision: Precision = float16,
) -> None:
    """Give the nodes with the lowest scores another precision, the quantizers around them included.

    Args:
        sim: changed in place, or not at all; call `compute_encodings` afterwards.
        layer_sensitivity_dict: node → score with only its quantizers on, of `analyze_per_layer_sensitivity`.
        percent_to_flip: of the nodes, rounded up.
        override_precision: a type, or a pair: of parameters, of activations; float16 switches the quantizers off.

    Raises:
        ConfigError: no such node, share or precision, or a quantizer is frozen.
    """
    params, activations = _precisions(override_precision)
    share = real(0, 100)("percent_to_flip", percent_to_flip)
    names = {node.name or "" for node in simulated(sim).float_model.graph}
    if not isinstance(layer_sensitivity_dict, Mapping):
        raise ConfigError(f"layer_sensitivity_dict must be a dictionary, not {type(layer_sensitivity_dict).__name__}")
    for node, score in layer_sensitivity_dict.items():
        real()(f"the score of {node!r}", score)
        if node not in names:
            raise ConfigError(f"layer_sensitivity_dict: the model has no node {node!r}{nearest(node, names)}")
    count = math.ceil(len(layer_sensitivity_dict) * share / 100)
    worst = sorted(layer_sensitivity_dict, key=layer_sensitivity_dict.__getitem__)[:count]
    around = [sim.get_op_quantizers(node) for node in worst]
    every = dict.fromkeys(q for ins, outs, own in around for q in (*ins, *outs, *own.values()) if q.enabled)
    for quantizer in sorted(every, key=lambda q: not q.is_encoding_frozen()):  # a frozen one refuses at once
        quantizer.set_precision(params if quantizer.is_param else activations)


def _precisions(override: object) -> tuple[qtype, qtype]:
    """Types of parameters and of activations.

    Raises:
        ConfigError: it is none.
    """
    pair = tuple(override) if isinstance(override, (tuple, list)) else (override, override)
    if len(pair) != 2:
        raise ConfigError(f"override_precision must be a type, or two: of parameters, of activations, not {override!r}")
    params, activations = (as_qtype("override_precision", value) for value in pair)
    return params, activations
