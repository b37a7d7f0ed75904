"""Quark's first API, its tutorial on SmoothQuant: a transformer's products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from exported_transformers import exported_feeds

import quark_onnx
from quark_onnx.quark import CalibrationMethod, Config, ModelQuantizer, QuantizationConfig, QuantType

MODEL = "vit.legacy.onnx"


def samples() -> list[np.ndarray]:
    return [feed["pixel_values"] for feed in exported_feeds("vit.legacy", 6)]


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    quant_config = QuantizationConfig(
        calibrate_method=CalibrationMethod.MinMax,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
        include_sq=True,
        include_cle=False,
        extra_options={"SmoothAlpha": 0.8, "MatMulConstBOnly": True, "FuseGelu": True},
    )
    output = folder / "smooth.onnx"
    ModelQuantizer(Config(global_quant_config=quant_config)).quantize_model(str(model), str(output), list(samples))
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    config = quark_onnx.QuantizationConfig(
        op_types_to_quantize=["MatMul", "Gemm"],
        include_cle=False,
        extra_options={"SmoothQuant": True, "SmoothAlpha": 0.8, "MatMulConstBOnly": True},
    )
    output = folder / "smooth.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, list(samples))
    return [output]
