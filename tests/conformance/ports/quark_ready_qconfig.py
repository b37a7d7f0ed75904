"""Quark's second API: a ready configuration, changed a little; a field of the first API as an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import A8W8_QCONFIG, CLEConfig, ModelQuantizer


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    quant_config = A8W8_QCONFIG
    quant_config.algo_config = [CLEConfig()]
    quant_config.exclude = ["head.gemm"]
    quant_config.extra_options["PrintSummary"] = False
    output = folder / "a8w8.onnx"
    ModelQuantizer(quant_config).quantize_model(str(model), str(output), samples)
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    config = quark_onnx.QuantizationConfig(
        calibrate_method="Percentile",
        nodes_to_exclude=["head.gemm"],
        extra_options={"ActivationSymmetric": True, "AlignConcat": True, "ForceQuantizeNoInputCheck": True},
    )
    output = folder / "a8w8.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, samples)
    return [output]
