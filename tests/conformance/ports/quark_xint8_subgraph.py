"""Quark's first API, as for detectors on an NPU: XINT8, the head stays float, AdaRound by a dictionary."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import Config, ModelQuantizer, get_default_config

ADAROUND = {
    "DataSize": 16,
    "FixedSeed": 1705472343,
    "BatchSize": 2,
    "NumIterations": 30,
    "LearningRate": 0.1,
    "OptimAlgorithm": "adaround",
    "OptimDevice": "cpu",
    "InferDevice": "cpu",
    "EarlyStop": True,
}
HEAD = (["head.pool"], ["head.gemm"])


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    qc = copy.deepcopy(get_default_config("XINT8"))
    qc.subgraphs_to_exclude = [HEAD]
    qc.include_fast_ft = True
    qc.extra_options["FastFinetune"] = ADAROUND
    output = folder / "xint8.onnx"
    ModelQuantizer(Config(global_quant_config=qc)).quantize_model(str(model), str(output), samples)
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    preset = quark_onnx.get_default_config("XINT8")
    config = replace(
        preset,
        subgraphs_to_exclude=[HEAD],
        include_fast_ft=True,
        extra_options={**preset.extra_options, "FastFinetune": ADAROUND},
    )
    output = folder / "xint8.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, samples)
    return [output]
