"""Quark's second API, its tutorial on mixed precision: layers of 16 bits move to 8 where that costs little."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import (
    AutoMixprecisionConfig,
    CLEConfig,
    Int8Spec,
    Int16Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
)


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    narrow = QLayerConfig(input_tensors=Int8Spec(), weight=Int8Spec())
    config = QConfig(
        global_config=QLayerConfig(activation=Int16Spec(), weight=Int16Spec()),
        algo_config=[
            CLEConfig(),
            AutoMixprecisionConfig(narrow, exclude_layers=["head.gemm"], metric_default="l2", metric_threshold=2.0),
        ],
        Percentile=99.9999,
        Int32Bias=False,
        Int16Bias=False,
    )
    output = folder / "mixed.onnx"
    ModelQuantizer(config).quantize_model(str(model), str(output), samples)
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    config = quark_onnx.QuantizationConfig(
        calibrate_method="Percentile",
        activation_type="int16",
        weight_type="int16",
        include_auto_mp=True,
        extra_options={
            "ActivationSymmetric": True,
            "Percentile": 99.9999,
            "Int32Bias": False,
            "AutoMixprecision": {"ExcludeLayers": ["head.gemm"], "MetricDefault": "l2", "MetricThreshold": 2.0},
        },
    )
    output = folder / "mixed.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, samples)
    return [output]
