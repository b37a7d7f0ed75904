"""Number types of single layers: the option LayerTypes.

    {name or pattern of nodes: {activation_type, weight_type, symmetric, per_channel, BlockSize}}

What an entry leaves out is as the configuration has it. An activation_type "float" leaves what the layer reads, makes
and adds float: its weight alone is quantized, as the option WeightsOnly has it for the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.number_formats import FLOATS, TYPES, type_name
from quark_onnx.core.settings.checked_fields import Check, flag, optional, whole

OPTION = "LayerTypes"
FLOAT = "float"
"""The activation_type of layers whose weight alone is quantized."""

BLOCKS = (2, 2**20)
"""Fewest and most neighbours that have one scale."""


def _integers(name: str, value: Any) -> str:
    found = type_name(value, name)
    if found in FLOATS:
        raise ConfigError(f"{name}: a layer takes integer types, not {found!r}; name it in nodes_to_exclude instead")
    return found


def _activations(name: str, value: Any) -> str:
    return FLOAT if value == FLOAT else _integers(name, value)


_KEYS: dict[str, Check] = {
    "activation_type": _activations,
    "weight_type": _integers,
    "symmetric": flag,
    "per_channel": flag,
    "BlockSize": optional(whole(*BLOCKS)),
}
OF_WEIGHTS = tuple(key for key in _KEYS if key != "activation_type")
"""Keys that are about the weight of a layer."""

_AS_OPTIONS = {"symmetric": "WeightSymmetric", "BlockSize": "BlockSize"}
"""Keys that the configuration has among its extra options."""

_OF_THE_WHOLE = (OPTION, "AutoMixprecision", "FastFinetune")
"""Extra options that say nothing of a single layer."""


def plain_layers(value: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """The value of the option as JSON gives it back: types by name.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    return FrozenDict({str(pattern): _entry(f"{OPTION}[{pattern!r}]", asked) for pattern, asked in value.items()})


def _entry(where: str, asked: Any) -> FrozenDict[str, Any]:
    if not isinstance(asked, Mapping) or not asked:
        raise ConfigError(f"{where} must be a dictionary of {', '.join(_KEYS)}, not {asked!r}")
    for key in asked:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), _KEYS)}")
    return FrozenDict({key: _KEYS[key](f"{where}[{key!r}]", entry) for key, entry in asked.items()})


def fields_of_layer(whole_model: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration of a layer.

    Args:
        whole_model: fields of that of the model.
        asked: of the layer, from `plain_layers`.
    """
    weight = asked.get("weight_type", whole_model["weight_type"])
    options = {key: value for key, value in whole_model["extra_options"].items() if key not in _OF_THE_WHOLE}
    options |= {_AS_OPTIONS[key]: value for key, value in asked.items() if key in _AS_OPTIONS}
    activation = asked.get("activation_type", whole_model["activation_type"])
    alone, ranges = activation == FLOAT, not (whole_model["use_dynamic_quant"] or options.get("WeightsOnly"))
    if not alone and not ranges and "activation_type" in asked:
        raise ConfigError(
            f"activation_type {activation!r} needs ranges from calibration, and WeightsOnly and use_dynamic_quant do "
            f"without for all layers; leave these out, and give the other layers activation_type {FLOAT!r}"
        )
    return {
        **whole_model,
        "activation_type": whole_model["activation_type"] if alone else activation,
        "weight_type": weight,
        "per_channel": asked.get("per_channel", whole_model["per_channel"]),
        "reduce_range": whole_model["reduce_range"] and TYPES.get(weight, (8,))[0] == 8,
        "weight_pairs": "auto",
        "include_fast_ft": False,
        "include_auto_mp": False,
        "use_dynamic_quant": whole_model["use_dynamic_quant"] and not alone,
        "extra_options": options | ({"WeightsOnly": True} if alone else {}),
    }
