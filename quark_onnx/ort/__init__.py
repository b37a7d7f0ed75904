"""The API of onnxruntime.quantization on this engine: `from quark_onnx.ort import …` in place of its import."""

from quark_onnx.ort.calibrate import CalibrationDataReader, CalibrationMethod
from quark_onnx.ort.elsewhere import __getattr__  # noqa: F401 - says where other names are
from quark_onnx.ort.qdq_config import get_qdq_config
from quark_onnx.ort.quant_config import DynamicQuantConfig, QuantConfig, StaticQuantConfig
from quark_onnx.ort.quant_utils import QuantFormat, QuantType
from quark_onnx.ort.quantize import quantize, quantize_dynamic, quantize_static
from quark_onnx.ort.shape_inference import quant_pre_process

__all__ = [
    "CalibrationDataReader",
    "CalibrationMethod",
    "DynamicQuantConfig",
    "QuantConfig",
    "QuantFormat",
    "QuantType",
    "StaticQuantConfig",
    "get_qdq_config",
    "quant_pre_process",
    "quantize",
    "quantize_dynamic",
    "quantize_static",
]
