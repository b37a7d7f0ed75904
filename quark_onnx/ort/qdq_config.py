"""`get_qdq_config`: a static configuration for all that a model has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.ort.calibrate import CalibrationMethod
from quark_onnx.ort.lowering import listed
from quark_onnx.ort.model_nodes import Source, op_types, picked
from quark_onnx.ort.quant_config import Names, StaticQuantConfig
from quark_onnx.ort.quant_utils import QuantFormat, QuantType

CALIBRATE_ARGS = {
    "symmetric": "CalibTensorRangeSymmetric",
    "moving_average": "CalibMovingAverage",
    "averaging_constant": "CalibMovingAverageConstant",
    "max_intermediate_outputs": "CalibMaxIntermediateOutputs",
    "percentile": "CalibPercentile",
}
"""Keys of `calibrate_args` → keys of `extra_options`."""

Asked = Callable[[Any, Any], bool]


def get_qdq_config(
    model_input: Source,
    calibration_data_reader: Any,
    calibrate_method: Any = CalibrationMethod.MinMax,
    calibrate_args: Mapping[str, Any] | None = None,
    activation_type: Any = QuantType.QUInt8,
    weight_type: Any = QuantType.QInt8,
    activation_symmetric: bool = False,
    weight_symmetric: bool | None = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    keep_removable_activations: bool = False,
    min_real_range: float | None = None,
    tensor_quant_overrides: Mapping[str, Any] | None = None,
    calibration_providers: Names = None,
    op_types_to_quantize: Names = None,
    nodes_to_exclude: Sequence[str] | Asked | None = None,
    extra_options: Mapping[str, Any] | None = None,
) -> StaticQuantConfig:
    """A configuration for `quantize`, to be changed before.

    Args:
        op_types_to_quantize: default: all types that the model has, but for Cast and quantizers.
        nodes_to_exclude: names, or a function of the model and a node, both as protobufs, that is asked of each node.
        extra_options: go before what the other parameters say.

    Raises:
        ConfigError: an unknown key in `calibrate_args`, or what is no list of names, or no dictionary.
        ModelError: the model cannot be read.
    """
    for name, value in (("calibrate_args", calibrate_args), ("extra_options", extra_options)):
        if not isinstance(value, Mapping | None):
            raise ConfigError(f"{name} must be a dictionary, not {value!r}")
    for key in calibrate_args or {}:
        if key not in CALIBRATE_ARGS:
            raise ConfigError(f"calibrate_args: unknown key {key!r}{nearest(str(key), CALIBRATE_ARGS)}")
    options = {
        "MinimumRealRange": min_real_range,
        "QDQKeepRemovableActivations": keep_removable_activations or None,
        "ActivationSymmetric": activation_symmetric,
        "WeightSymmetric": weight_symmetric,
        "TensorQuantOverrides": tensor_quant_overrides or None,
        **{CALIBRATE_ARGS[key]: value for key, value in (calibrate_args or {}).items()},
        **(extra_options or {}),
    }
    return StaticQuantConfig(
        calibration_data_reader,
        calibrate_method,
        QuantFormat.QDQ,
        activation_type,
        weight_type,
        list(listed("op_types_to_quantize", op_types_to_quantize) or sorted(op_types(model_input))),
        None,
        list(
            picked(model_input, nodes_to_exclude)
            if callable(nodes_to_exclude)
            else listed("nodes_to_exclude", nodes_to_exclude)
        ),
        per_channel,
        reduce_range,
        False,
        calibration_providers,
        {key: value for key, value in options.items() if value is not None},
    )
