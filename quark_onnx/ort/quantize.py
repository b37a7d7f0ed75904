"""The entry points of onnxruntime.quantization: same parameters, same order, our engine and `Result`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.presets import Config
from quark_onnx.ort.calibrate import CalibrationMethod
from quark_onnx.ort.lowering import dynamic, static
from quark_onnx.ort.model_nodes import Source, op_types
from quark_onnx.ort.quant_config import DynamicQuantConfig, Names, QuantConfig, StaticQuantConfig
from quark_onnx.ort.quant_utils import QuantFormat, QuantType
from quark_onnx.ort.weight_only import WeightOnlyQuantConfig
from quark_onnx.ort.weight_only_lowering import weight_only
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Result


def quantize_static(
    model_input: Source,
    model_output: str | Path,
    calibration_data_reader: Any = None,
    quant_format: Any = QuantFormat.QDQ,
    op_types_to_quantize: Names = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    activation_type: Any = QuantType.QInt8,
    weight_type: Any = QuantType.QInt8,
    nodes_to_quantize: Names = None,
    nodes_to_exclude: Names = None,
    use_external_data_format: bool = False,
    calibrate_method: Any = CalibrationMethod.MinMax,
    calibration_providers: Names = None,
    extra_options: Mapping[str, Any] | None = None,
    calibration_cache_path: str | Path | None = None,
) -> Result:
    """Quantize weights and activations, whose ranges come from data; docs/porting_onnxruntime.md tells each parameter.

    Args:
        calibration_data_reader: a reader with `get_next()`, or whatever else `ModelQuantizer` takes.
        calibration_cache_path: a `.npz` file, used for the model and the data that it was made of. Data are needed
            beside it.

    Raises:
        ConfigError, ModelError, DataError: see each; nothing is written then.
    """
    config = StaticQuantConfig(
        calibration_data_reader,
        calibrate_method,
        quant_format,
        activation_type,
        weight_type,
        op_types_to_quantize,
        nodes_to_quantize,
        nodes_to_exclude,
        per_channel,
        reduce_range,
        use_external_data_format,
        calibration_providers,
        extra_options,
    )
    lowered = static(config, op_types(model_input))
    return _quantized(model_input, model_output, lowered, calibration_data_reader, calibration_cache_path)


def quantize_dynamic(
    model_input: Source,
    model_output: str | Path,
    op_types_to_quantize: Names = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    weight_type: Any = QuantType.QInt8,
    nodes_to_quantize: Names = None,
    nodes_to_exclude: Names = None,
    use_external_data_format: bool = False,
    extra_options: Mapping[str, Any] | None = None,
) -> Result:
    """Quantize weights; inputs of layers become integers while the model runs, so that no data are needed.

    Raises:
        ConfigError, ModelError: see each; nothing is written then.
    """
    config = DynamicQuantConfig(
        weight_type,
        op_types_to_quantize,
        nodes_to_quantize,
        nodes_to_exclude,
        per_channel,
        reduce_range,
        use_external_data_format,
        extra_options,
    )
    return _quantized(model_input, model_output, dynamic(config, op_types(model_input)))


def quantize(
    model_input: Source, model_output: str | Path, quant_config: QuantConfig | WeightOnlyQuantConfig
) -> Result:
    """Quantize as a configuration says: static, dynamic, or weights only.

    Raises:
        ConfigError, ModelError, DataError: see each; nothing is written then.
    """
    if isinstance(quant_config, StaticQuantConfig):
        lowered = static(quant_config, op_types(model_input))
        return _quantized(model_input, model_output, lowered, quant_config.calibration_data_reader)
    if isinstance(quant_config, DynamicQuantConfig):
        return _quantized(model_input, model_output, dynamic(quant_config, op_types(model_input)))
    if isinstance(quant_config, WeightOnlyQuantConfig):
        lowered = weight_only(quant_config, external=True)
        return _quantized(model_input, model_output, lowered, quant_config.data)
    raise ConfigError(
        "quant_config must be a StaticQuantConfig, a DynamicQuantConfig or one of matmul_nbits_quantizer, of "
        f"quark_onnx.ort, not {type(quant_config).__module__}.{type(quant_config).__name__}; "
        "quark_onnx.ModelQuantizer takes a QuantizationConfig"
    )


def _quantized(
    source: Source,
    output: str | Path,
    config: QuantizationConfig,
    data: object = None,
    cache: str | Path | None = None,
) -> Result:
    return ModelQuantizer(Config(config)).quantize_model(source, output, data, calibration_cache=cache)
