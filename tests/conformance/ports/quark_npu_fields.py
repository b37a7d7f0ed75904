"""Quark's first API: fields given one by one, calibration data in a folder, a model in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import quark_onnx
from quark_onnx.quark import Config, ModelQuantizer, PowerOfTwoMethod, QuantFormat, QuantizationConfig, QuantType


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    quant_config = QuantizationConfig(
        quant_format=QuantFormat.QDQ,
        calibrate_method=PowerOfTwoMethod.MinMSE,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        enable_npu_cnn=True,
        include_cle=True,
        print_summary=False,
        extra_options={"ActivationSymmetric": True, "CLESteps": 1, "AlignSlice": True, "SimulateDPU": True},
    )
    output = folder / "npu.onnx"
    result = ModelQuantizer(Config(quant_config)).quantize_model(
        onnx.load(model), None, calibration_data_path=saved(samples, folder)
    )
    onnx.save(result.model, output)
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    config = quark_onnx.QuantizationConfig(
        target="vitisai",
        calibrate_method="MinMSE",
        activation_type="uint8",
        weight_type="int8",
        extra_options={"CLESteps": 1},
    )
    output = folder / "npu.onnx"
    result = quark_onnx.ModelQuantizer(config).quantize_model(onnx.load(model), None, samples)
    onnx.save(result.model, output)
    return [output]


def saved(samples: np.ndarray, folder: Path) -> Path:
    """A folder with a file for each sample."""
    place = folder / "calib"
    place.mkdir()
    for index, sample in enumerate(samples):
        np.save(place / f"{index:03}.npy", sample[None])
    return place
