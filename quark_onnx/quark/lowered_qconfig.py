"""Quark's second configuration as one of the first: layers become the options LayerTypes and OpTypeQuantOverrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.checked_fields import names
from quark_onnx.quark.algorithms import AlgoConfig, asked_by
from quark_onnx.quark.enums import CalibMethod, CalibrationMethod, LayerWiseMethod, PowerOfTwoMethod, ScaleType
from quark_onnx.quark.lowered_layers import layer_types, per_channel, type_overrides
from quark_onnx.quark.qconfig import QConfig
from quark_onnx.quark.quantization_config import QuantizationConfig
from quark_onnx.quark.specs import QLayerConfig, QTensorConfig
from quark_onnx.quark.without_counterpart import refuse_type

_BIASES = {"Int8": {"Int32Bias": False}, "Int16": {"Int16Bias": True}, "Int32": {"Int32Bias": True}}
_KINDS: dict[str, Any] = {
    "specific_layer_config": Mapping,
    "layer_type_config": Mapping,
    "exclude": Sequence,
    "algo_config": Sequence,
    "extra_options": Mapping,
}
NodesOf = Callable[[Sequence[str]], list[str]]
"""The names of the nodes of some operator types."""


def first_api(config: QConfig, algorithms: Sequence[AlgoConfig], nodes_of: NodesOf) -> QuantizationConfig:
    """The same in the first API.

    Args:
        algorithms: more of them than the configuration has.
        nodes_of: asked for the nodes of operator types that stay float.

    Raises:
        ConfigError: a value that has no counterpart.
    """
    if not isinstance(config.global_config, QLayerConfig):
        raise ConfigError(f"global_config must be a QLayerConfig, not {config.global_config!r}")
    for name, kind in _KINDS.items():
        if not isinstance(getattr(config, name), kind):
            wanted = "a list" if kind is Sequence else "a dictionary"
            raise ConfigError(f"{name} must be {wanted}, not {getattr(config, name)!r}")
    inputs, weight = (_needed(config.global_config, name) for name in ("input_tensors", "weight"))
    fields, options = asked_by([*config.algo_config, *algorithms])
    said = _global(config.global_config, inputs, weight)
    _refuse_contradictions(said, config.extra_options)
    options |= said | _kept(options, config.extra_options)
    nodes, subgraphs = _excluded(config.exclude)
    types = {key: value for key, value in config.layer_type_config.items() if key is not None}
    floats = names("layer_type_config[None]", config.layer_type_config.get(None, ()))
    layers = layer_types(config.specific_layer_config, config.global_config)
    overrides = type_overrides(types, config.global_config)
    for key, asked in (("LayerTypes", layers), ("OpTypeQuantOverrides", overrides)):
        if asked:
            options[key] = {**asked, **(options.get(key) or {})}
    npu = options.pop("EnableNPUCnn", said.get("UsePowerOf2Scale", False) and not (layers or overrides))
    if npu and inputs.calibration_method not in (CalibMethod.MinMax, CalibMethod.MinMSE):
        raise ConfigError(
            f"global_config input_tensors: scales for the NPU come from CalibMethod.MinMSE or MinMax, not "
            f"{inputs.calibration_method.name}; set one of these, or EnableNPUCnn=False"
        )
    return QuantizationConfig(
        calibrate_method=_method(inputs),
        activation_type=inputs.data_type.name,
        weight_type=weight.data_type.name,
        per_channel=per_channel(weight, "global_config weight"),
        nodes_to_exclude=[*nodes, *(nodes_of(floats) if floats else [])],
        subgraphs_to_exclude=subgraphs,
        use_external_data_format=config.use_external_data_format,
        enable_npu_cnn=npu,
        extra_options=options,
        **{"include_cle": False, **fields},
    )


def _refuse_contradictions(said: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """A method for weights among the options is the one that counts, as in Quark; nothing else is said twice."""
    for key in (said.keys() & options.keys()) - {"WeightCalibrateMethod"}:
        if options[key] not in (None, said[key]):
            raise ConfigError(
                f"extra option {key}={options[key]!r}, and global_config says {said[key]!r}: leave the option out, and "
                "set the specification"
            )


def _kept(asked: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options, those of fine-tuning on top of what an algorithm says."""
    merged = {key: {**asked[key], **value} for key, value in given.items() if isinstance(asked.get(key), Mapping)}
    return {**given, **merged}


def _needed(layer: QLayerConfig, name: str) -> QTensorConfig:
    spec = layer.spec(name)
    if spec is None:
        raise ConfigError(f"global_config needs {name}; for weights alone give both, and WeightsOnly=True")
    return spec


def _global(layer: QLayerConfig, inputs: QTensorConfig, weight: QTensorConfig) -> dict[str, Any]:
    """Options that the specifications of the whole model stand for."""
    for name, spec in (("input_tensors", inputs), ("weight", weight)):
        refuse_type(f"global_config {name}", spec.data_type)
    made, bias = layer.spec("output_tensors"), layer.spec("bias")
    if made is not None and vars(made) != vars(inputs):
        raise ConfigError(
            "global_config: output_tensors differ from input_tensors, and a tensor is the output of one layer and the "
            "input of the next; leave output_tensors out, or say it of operator types in layer_type_config"
        )
    if per_channel(inputs, "global_config input_tensors"):
        raise ConfigError("global_config input_tensors: activations have one scale; use QuantGranularity.Tensor")
    options = {"ActivationSymmetric": inputs.symmetric, "WeightSymmetric": weight.symmetric}
    options |= _weights(inputs, weight)
    return options | (_biases(bias) if bias is not None else {})


def _weights(inputs: QTensorConfig, weight: QTensorConfig) -> dict[str, Any]:
    """How scales of weights are chosen: from min and max, unless another method than the usual Percentile is given."""
    scales = inputs.scale_type, weight.scale_type
    if ScaleType.Int16 in scales:
        raise ConfigError("scale_type Int16 is not supported: use ScaleType.Float32 or PowerOf2")
    method = weight.calibration_method.name
    if scales == (ScaleType.Float32, ScaleType.PowerOf2) and weight.calibration_method is CalibMethod.MinMax:
        return {"WeightCalibrateMethod": "NonOverflow"}
    if len(set(scales)) > 1:
        raise ConfigError(
            f"global_config: input_tensors have {scales[0]} and weight {scales[1]}: give both the same (weights alone "
            "may have PowerOf2 with CalibMethod.MinMax)"
        )
    pow2 = {"UsePowerOf2Scale": True} if scales[0] is ScaleType.PowerOf2 else {}
    return pow2 | ({} if method in ("MinMax", "Percentile") else {"WeightCalibrateMethod": method})


def _biases(bias: QTensorConfig) -> dict[str, Any]:
    if bias.data_type.name not in _BIASES:
        raise ConfigError(f"global_config bias: {bias.data_type.name} is not supported: use {', '.join(_BIASES)}")
    return dict(_BIASES[bias.data_type.name])


def _method(inputs: QTensorConfig) -> Any:
    """The member of the first API; MinMSE with scales of any size has none, and goes by its name."""
    name, pow2 = inputs.calibration_method.name, inputs.scale_type is ScaleType.PowerOf2
    if pow2 and name in ("MinMax", "MinMSE"):
        return PowerOfTwoMethod.NonOverflow if name == "MinMax" else PowerOfTwoMethod.MinMSE
    if name == "LayerwisePercentile":
        return LayerWiseMethod.LayerWisePercentile
    return name if name == "MinMSE" else CalibrationMethod[name]


def _excluded(entries: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Names, and pairs of start and end nodes."""
    if isinstance(entries, str):
        raise ConfigError(f"exclude must be a list of names and pairs ([start nodes], [end nodes]), not {entries!r}")
    flat = [part for entry in entries for part in (entry if isinstance(entry, list) else [entry])]
    return [entry for entry in flat if isinstance(entry, str)], [entry for entry in flat if not isinstance(entry, str)]
