"""AMD Quark's API for ONNX: its scripts run with this import. What differs is in docs/porting_quark.md."""

from quark_onnx.quark.data_readers import CachedDataReader, CalibrationDataReader, PathDataReader, RandomDataReader
from quark_onnx.quark.enums import (
    CalibMethod,
    CalibrationMethod,
    ExtendedCalibrationMethod,
    ExtendedQuantFormat,
    ExtendedQuantType,
    Int16Method,
    LayerWiseMethod,
    PowerOfTwoMethod,
    QuantFormat,
    QuantGranularity,
    QuantType,
    ScaleType,
    VitisQuantFormat,
    VitisQuantType,
)
from quark_onnx.quark.model_quantizer import ModelQuantizer
from quark_onnx.quark.presets import get_default_config
from quark_onnx.quark.quantization_config import Config, QuantizationConfig

__all__ = [
    "CachedDataReader",
    "CalibMethod",
    "CalibrationDataReader",
    "CalibrationMethod",
    "Config",
    "ExtendedCalibrationMethod",
    "ExtendedQuantFormat",
    "ExtendedQuantType",
    "Int16Method",
    "LayerWiseMethod",
    "ModelQuantizer",
    "PathDataReader",
    "PowerOfTwoMethod",
    "QuantFormat",
    "QuantGranularity",
    "QuantType",
    "QuantizationConfig",
    "RandomDataReader",
    "ScaleType",
    "VitisQuantFormat",
    "VitisQuantType",
    "get_default_config",
]
