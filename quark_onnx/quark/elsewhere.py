"""Names of Quark's that are not here, and what there is instead."""

from __future__ import annotations

from quark_onnx.ort.names_elsewhere import told_elsewhere
from quark_onnx.quark.without_counterpart import TYPES

_HERE = "import names from quark_onnx.quark itself, where all of them are"
_INNER = "ModelQuantizer does all steps; what was decided is in the result's plan and report"
_SEARCH = "quark_onnx.optimize.optimize finds the smallest or fastest model within a budget"
_RANGES = "quantize_model calibrates, and calibrate_method says how"

ELSEWHERE = {
    **{name: reason for name, reason in TYPES.items() if name.startswith("MX")},
    **dict.fromkeys(("quantization", "calibration", "algorithm"), _HERE),
    **dict.fromkeys(("preprocess", "postprocess", "quantizers", "optimizations", "utils", "QuantizationMode"), _INNER),
    **dict.fromkeys(("operators", "get_library_path"), "models hold standard operators, and onnxruntime loads them"),
    "tools": "the commands are those of quark-onnx --help; onnx and onnxruntime have some that convert models",
    "dump_model": "result.layer_sqnr() and quark-onnx analyze compare tensors",
    **dict.fromkeys(("quantize_static", "quantize_dynamic"), "it is in quark_onnx.ort"),
    **dict.fromkeys(("AutoSearch", "AutoSearchPro", "SearchSpace", "get_auto_search_config"), _SEARCH),
    "generate_all_configs": _SEARCH,
    **dict.fromkeys(
        ("CalibraterBase", "MinMaxCalibrater", "create_calibrator_float_scale", "run_calibration"), _RANGES
    ),
    **dict.fromkeys(("create_calibrator_power_of_two", "write_calibration_table"), _RANGES),
    "get_data_reader": "give quantize_model a folder as calibration_data_path",
    "get_default_config_mapping": "quark-onnx presets lists them, and get_default_config gives one",
}

elsewhere = told_elsewhere("quark_onnx.quark", ELSEWHERE)
