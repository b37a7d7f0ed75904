"""Quark's ready configurations of the second API: every import makes a new one, which nobody else changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.settings import presets
from quark_onnx.quark.algorithms import AdaQuantConfig, AdaRoundConfig, AlgoConfig
from quark_onnx.quark.elsewhere import elsewhere
from quark_onnx.quark.presets import get_default_config
from quark_onnx.quark.qconfig import QConfig
from quark_onnx.quark.quantization_config import QuantizationConfig
from quark_onnx.quark.specs import BFloat16Spec, BFP16Spec, Int8Spec, Int16Spec, QLayerConfig, ReadySpec, XInt8Spec

_FORCE = {"ForceQuantizeNoInputCheck": True}
_ALIGNED = {**_FORCE, "AlignConcat": True, "AlignSlice": False, "FoldRelu": True}

_SPECS: dict[str, tuple[type[ReadySpec], type[ReadySpec], Mapping[str, Any]]] = {
    "XINT8": (XInt8Spec, XInt8Spec, _FORCE),
    "VINT8": (XInt8Spec, XInt8Spec, _FORCE),
    "A8W8": (Int8Spec, Int8Spec, _ALIGNED),
    "A16W8": (Int16Spec, Int8Spec, {**_ALIGNED, "AlignEltwiseQuantType": True}),
    "BF16": (BFloat16Spec, BFloat16Spec, _FORCE),
    "BFP16": (BFP16Spec, BFP16Spec, {}),
}
"""What activations and weights are, and options."""

_TUNED: dict[str, type[AlgoConfig]] = {"_ADAROUND": AdaRoundConfig, "_ADAQUANT": AdaQuantConfig}

READY = {
    f"{name}{ending}_QCONFIG": (name, ending)
    for name in _SPECS
    for ending in ("", *(_TUNED if name in ("XINT8", "A8W8", "A16W8") else ()))
}
"""The names, and what they are made of."""


def __getattr__(name: str) -> QConfig | QuantizationConfig:
    """A new configuration, for `from quark_onnx.quark import A8W8_QCONFIG`, or of a preset, as for `A8W8_CONFIG`.

    Raises:
        AttributeError: there is none; the message says what there is instead, if Quark has it.
    """
    if (preset := name.removesuffix("_CONFIG")) != name and preset in presets.PRESETS:
        return get_default_config(preset)
    if name not in READY:
        elsewhere(name)
    base, ending = READY[name]
    inputs, weight, options = _SPECS[base]
    return QConfig(
        QLayerConfig(input_tensors=inputs(), weight=weight()),
        algo_config=[_TUNED[ending]()] if ending else [],
        extra_options={**options},
    )
