"""The types that layers move to with automatic mixed precision: a QLayerConfig in Quark, their names in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.mixed_precision import INT8
from quark_onnx.quark.specs import QLayerConfig
from quark_onnx.quark.without_counterpart import refuse_type

_ALL = 2**31 - 1
"""Samples to judge by, where Quark's 0 means all of them."""

_PARTS = (
    ("input_tensors", "activation_type", "ActivationSymmetric", False),
    ("weight", "weight_type", "WeightSymmetric", True),
)


def mixed(values: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Rewrite the option AutoMixprecision.

    Args:
        values: fields of the first API.
        options: its extra options; changed.

    Raises:
        ConfigError: layers would move to several types, or change what they cannot.
    """
    asked = options.get("AutoMixprecision")
    if not isinstance(asked, Mapping):
        return
    asked, target = dict(asked), asked.get("TargetLayerConfig")
    if asked.get("DataSize") == 0:
        asked["DataSize"] = _ALL
    if isinstance(target, QLayerConfig):
        asked["TargetLayerConfig"] = _types(target, values, options)
    elif target is not None and not (isinstance(target, Mapping) and target.keys() <= INT8.keys()):
        raise ConfigError(
            f"AutoMixprecision TargetLayerConfig: {target!r} is not supported: give one QLayerConfig that all layers "
            "may move to"
        )
    options["AutoMixprecision"] = asked


def _types(target: QLayerConfig, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, field, option, usual in _PARTS:
        spec = target.spec(name)
        if spec is None:
            found[field] = values[field]
            continue
        refuse_type(f"AutoMixprecision TargetLayerConfig {name}", spec.data_type)
        here = usual if options.get(option) is None else options[option]
        if spec.symmetric != here:
            raise ConfigError(
                f"AutoMixprecision TargetLayerConfig {name}: symmetric={spec.symmetric}, and layers stay as symmetric "
                f"as the model is; call its set_symmetric({here})"
            )
        found[field] = spec.data_type.name
    return found
