"""Parts of a `QConfig` as dictionaries in Quark's layout, ready for JSON or YAML, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.quark import algorithms, data_types, specs
from quark_onnx.quark.algorithms import AlgoConfig
from quark_onnx.quark.data_types import DataType
from quark_onnx.quark.enums import CalibMethod, QuantGranularity, ScaleType
from quark_onnx.quark.specs import QLayerConfig, QTensorConfig

_ENUMS = {"scale_type": ScaleType, "calibration_method": CalibMethod, "quant_granularity": QuantGranularity}
_ALGORITHMS = {kind.name: kind for kind in AlgoConfig.__subclasses__() if kind.name} | {
    kind.name: kind for kind in (algorithms.AdaRoundConfig, algorithms.AdaQuantConfig)
}
_SPECS: dict[str, type[specs.ReadySpec]] = {
    kind.name: getattr(specs, f"{kind.name}Spec") for kind in vars(data_types).values() if isinstance(kind, DataType)
}
"""Specifications by their data types, whose names they have."""


def plain(value: Any) -> Any:
    """A value, or a part of a configuration, as dictionaries, lists, strings and numbers."""
    if isinstance(value, type) and issubclass(value, specs.ReadySpec):
        value = value()
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, DataType):
        return value.name
    if isinstance(value, AlgoConfig):
        return {"name": value.name, **{name: plain(entry) for name, entry in value.changed().items()}}
    if isinstance(value, QLayerConfig | QTensorConfig):
        parts = {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
        return {name: part for name, part in parts.items() if part is not None}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def layer_of(document: Mapping[str, Any]) -> QLayerConfig:
    """A layer from what `plain` makes of it.

    Raises:
        ConfigError: it is something else.
    """
    return QLayerConfig(**{name: _spec(name, entry) for name, entry in document.items()})


def algorithm_of(document: Mapping[str, Any]) -> AlgoConfig:
    """An algorithm from what `plain` makes of it.

    Raises:
        ConfigError: it is something else.
    """
    settings = dict(document)
    name = str(settings.pop("name", ""))
    if name not in _ALGORITHMS:
        raise ConfigError(f"algo_config: unknown name {name!r}{nearest(name, _ALGORITHMS)}")
    if isinstance(target := settings.get("target_layer_config"), Mapping):
        settings["target_layer_config"] = layer_of(target)
    return _ALGORITHMS[name](**settings)


def _spec(where: str, document: Mapping[str, Any]) -> QTensorConfig:
    values, kind = dict(document), str(document.get("data_type"))
    if kind not in _SPECS:
        raise ConfigError(f"{where}: unknown data_type {kind!r}{nearest(kind, _SPECS)}")
    del values["data_type"]
    return _SPECS[kind](**{name: _value(name, value) for name, value in values.items()})


def _value(name: str, value: Any) -> Any:
    members = _ENUMS[name].__members__ if name in _ENUMS else {}
    member = str(value).rpartition(".")[2]
    if members and member not in members:
        raise ConfigError(f"{name}: unknown value {value!r}{nearest(member, members)}")
    return members[member] if members else value
