"""What is said of single layers and of operator types: our options LayerTypes and OpTypeQuantOverrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.quark.data_types import DataType
from quark_onnx.quark.enums import CalibMethod, QuantGranularity
from quark_onnx.quark.specs import Int8Spec, Int16Spec, QLayerConfig, QTensorConfig, UInt8Spec, UInt16Spec
from quark_onnx.quark.without_counterpart import refuse_type

_OF_TYPE = {spec().data_type: spec for spec in (Int8Spec, UInt8Spec, Int16Spec, UInt16Spec)}
_PARTS = {"input_tensors": "input", "weight": "weight", "output_tensors": "output"}


def layer_types(asked: Mapping[Any, Any], common: QLayerConfig) -> dict[str, Any]:
    """The option LayerTypes for {QLayerConfig: [names or regular expressions]}.

    Args:
        common: of all other layers.

    Raises:
        ConfigError: what layers cannot have of their own.
    """
    found: dict[str, Any] = {}
    for key, patterns in asked.items():
        entry = _types(_layer(key, common, "specific_layer_config"), common)
        for pattern in _listed("specific_layer_config", patterns):
            if not isinstance(pattern, str):
                raise ConfigError(
                    f"specific_layer_config: {pattern!r} is not supported: name the layers, or give a regular "
                    "expression (^…); pairs of start and end nodes are for exclude"
                )
            found[pattern] = entry
    return found


def type_overrides(asked: Mapping[Any, Any], common: QLayerConfig) -> dict[str, Any]:
    """The option OpTypeQuantOverrides for {QLayerConfig: [operator types]}.

    Args:
        common: of all other layers.

    Raises:
        ConfigError: what operator types cannot have of their own.
    """
    found: dict[str, Any] = {}
    for key, op_types in asked.items():
        layer = _layer(key, common, "layer_type_config")
        parts = {part: _part(layer, name, common) for name, part in _PARTS.items() if layer.spec(name) is not None}
        found |= dict.fromkeys(_listed("layer_type_config", op_types), parts)
    return found


def per_channel(spec: QTensorConfig, where: str) -> bool:
    """Whether there is a scale per channel.

    Raises:
        ConfigError: there would be one per group.
    """
    if spec.quant_granularity is QuantGranularity.Group:
        raise ConfigError(
            f"{where}: QuantGranularity.Group says not how large a group is; give BlockSize in extra_options instead"
        )
    return spec.quant_granularity is QuantGranularity.Channel


def _listed(where: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} must hold lists of names, not {value!r}")
    return value


def _layer(key: Any, common: QLayerConfig, where: str) -> QLayerConfig:
    """The key; a data type is that type for what a layer reads and for its weight."""
    if isinstance(key, DataType):
        refuse_type(where, key)
        if key not in _OF_TYPE:
            raise ConfigError(f"{where}: a layer takes integer types, not {key.name}; name it in exclude instead")
        inputs = common.spec("input_tensors")
        assert inputs is not None
        return QLayerConfig(input_tensors=_OF_TYPE[key](symmetric=inputs.symmetric), weight=_OF_TYPE[key])
    if not isinstance(key, QLayerConfig):
        raise ConfigError(f"{where}: its keys must be QLayerConfig, not {key!r}")
    if (bias := key.spec("bias")) is not None:
        usual = common.spec("bias")
        if bias.data_type.name != ("Int32" if usual is None else usual.data_type.name):
            raise ConfigError(f"{where}: biases have one type in all layers; give bias in global_config instead")
    return key


def _types(layer: QLayerConfig, common: QLayerConfig) -> dict[str, Any]:
    """An entry of LayerTypes."""
    where, found = "specific_layer_config", dict[str, Any]()
    inputs, weight, made = (layer.spec(name) for name in ("input_tensors", "weight", "output_tensors"))
    if made is not None and (inputs is None or made.data_type != inputs.data_type):
        raise ConfigError(f"{where}: what a layer makes has the type of what it reads; give both the same")
    for name, spec in (("input_tensors", inputs), ("output_tensors", made)):
        if spec is not None:
            usual = _said(spec, common, "input_tensors", where)
            if spec.symmetric != usual.symmetric or _own_method(spec, usual):
                raise ConfigError(
                    f"{where} {name}: symmetry and method are those of global_config ({usual.symmetric}, "
                    f"{usual.calibration_method.name}) in all layers; set the same, or use layer_type_config"
                )
            found["activation_type"] = spec.data_type.name
    if weight is not None:
        if _own_method(weight, _said(weight, common, "weight", where)):
            raise ConfigError(f"{where} weight: the method is that of global_config; use layer_type_config")
        found |= {"weight_type": weight.data_type.name, "symmetric": weight.symmetric}
        found["per_channel"] = per_channel(weight, f"{where} weight")
    if not found:
        raise ConfigError(f"{where}: a QLayerConfig says nothing; give input_tensors or weight")
    return found


def _part(layer: QLayerConfig, name: str, common: QLayerConfig) -> dict[str, Any]:
    """What one part of OpTypeQuantOverrides asks for."""
    where, spec = f"layer_type_config {name}", layer.spec(name)
    assert spec is not None
    usual = _said(spec, common, "weight" if name == "weight" else "input_tensors", where)
    found: dict[str, Any] = {"quant_type": spec.data_type.name, "symmetric": spec.symmetric}
    if _own_method(spec, usual):
        found["calibrate_method"] = spec.calibration_method.name
    if name == "weight":
        found["per_channel"] = per_channel(spec, where)
    return found


def _said(spec: QTensorConfig, common: QLayerConfig, name: str, where: str) -> QTensorConfig:
    """What global_config says of such tensors; a layer has the same kind of scales, and says another one in vain."""
    usual = common.spec(name)
    assert usual is not None
    refuse_type(where, spec.data_type)
    if spec.scale_type not in (usual.scale_type, _default(spec, "scale_type")):
        raise ConfigError(f"{where}: scales are {usual.scale_type} in all layers; set the same, or leave it out")
    return usual


def _own_method(spec: QTensorConfig, usual: QTensorConfig) -> bool:
    """Whether a method is asked for that neither comes with the specification nor is that of all layers."""
    method: CalibMethod = spec.calibration_method
    return method not in (usual.calibration_method, _default(spec, "calibration_method"))


def _default(spec: QTensorConfig, name: str) -> Any:
    return getattr(type(spec), name, None)
