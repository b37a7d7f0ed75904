"""Quark's ready configurations of the second API: every import makes a new one, which nobody else changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.quark.algorithms import AdaQuantConfig, AdaRoundConfig, AlgoConfig
from quark_onnx.quark.qconfig import QConfig
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

ELSEWHERE = {
    "get_library_path": "models hold standard operators only, and onnxruntime loads them as they are",
    "dump_model": "result.layer_sqnr() and quark-onnx analyze compare tensors",
    "quantize_static": "it is in quark_onnx.ort",
    "quantize_dynamic": "it is in quark_onnx.ort",
    "AutoSearch": "quark_onnx.optimize.optimize searches for the smallest or fastest model within a budget",
    "AutoSearchPro": "quark_onnx.optimize.optimize searches for the smallest or fastest model within a budget",
    "SearchSpace": "quark_onnx.optimize.optimize searches for the smallest or fastest model within a budget",
    "get_auto_search_config": "quark_onnx.optimize.optimize searches for the smallest or fastest model within a budget",
    "generate_all_configs": "quark_onnx.optimize.optimize searches for the smallest or fastest model within a budget",
}
"""Names of Quark's that are not here, and the nearest."""


def __getattr__(name: str) -> QConfig:
    """A new configuration, for `from quark_onnx.quark import A8W8_QCONFIG`.

    Raises:
        ConfigError: Quark has it, and here it is something else. AttributeError: nobody has it.
    """
    if name in ELSEWHERE:
        raise ConfigError(f"quark_onnx.quark has no {name}: {ELSEWHERE[name]}")
    if name not in READY:
        raise AttributeError(f"quark_onnx.quark has no {name!r}")
    base, ending = READY[name]
    inputs, weight, options = _SPECS[base]
    return QConfig(
        QLayerConfig(input_tensors=inputs(), weight=weight()),
        algo_config=[_TUNED[ending]()] if ending else [],
        extra_options={**options},
    )
