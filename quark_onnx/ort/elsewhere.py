"""Names of onnxruntime.quantization that are not here, and what there is instead."""

from __future__ import annotations

from quark_onnx.ort.names_elsewhere import told_elsewhere

_RANGES = "quantize_static calibrates: calibrate_method says how, and calibration_cache_path keeps what was seen"
_CLASSES = "quantize_static and quantize make the model; what was decided is in the result's plan and report"
_SPEC = "write them as a dictionary, the extra option TensorQuantOverrides"
_QNN = (
    "models are made for onnxruntime's CPU provider and AMD's NPUs; the nearest is get_qdq_config with activation_type="
    "QuantType.QUInt16, of standard operators"
)

ELSEWHERE = {
    **dict.fromkeys(
        ("CalibraterBase", "MinMaxCalibrater", "create_calibrator", "write_calibration_table", "TensorData"), _RANGES
    ),
    **dict.fromkeys(("TensorsData", "load_tensors_data", "save_tensors_data"), _RANGES),
    **dict.fromkeys(("QDQQuantizer", "ONNXQuantizer", "CudaQuantizer", "qdq_quantizer", "onnx_quantizer"), _CLASSES),
    **dict.fromkeys(("base_quantizer", "cuda_quantizer", "registry", "operators", "fusions", "onnx_model"), _CLASSES),
    "QuantizationMode": "integer operators are what onnxruntime makes of QDQ; call quantize_static or quantize_dynamic",
    "tensor_quant_overrides": _SPEC,
    **dict.fromkeys(("execution_providers", "get_qnn_qdq_config", "qnn_preprocess_model"), _QNN),
    "matmul_4bits_quantizer": "it is quark_onnx.ort.matmul_nbits_quantizer, as in newer versions of onnxruntime",
    "matmul_bnb4_quantizer": "4-bit floats are not offered; quark_onnx.ort.matmul_nbits_quantizer has 4-bit integers",
    "qdq_loss_debug": "result.layer_sqnr() and the command quark-onnx analyze compare each layer",
    "static_quantize_runner": "use the command quark-onnx quantize",
}

__getattr__ = told_elsewhere("quark_onnx.ort", ELSEWHERE)
