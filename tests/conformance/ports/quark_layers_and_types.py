"""Quark's second API, its page on configurations: a layer in 16 bits, an operator type that stays float, exclusions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import CLEConfig, Int16Spec, ModelQuantizer, QConfig, QLayerConfig, XInt8Spec


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    config = QConfig(
        global_config=QLayerConfig(input_tensors=XInt8Spec(), weight=XInt8Spec()),
        specific_layer_config={
            QLayerConfig(input_tensors=Int16Spec(), weight=Int16Spec()): ["block1.pw.conv", r"^block2\.[dp]w\.conv"]
        },
        layer_type_config={None: ["Gemm"]},
        exclude=["stem.conv", "^block3.dw", (["block4.dw.conv"], ["block4.dw.relu6"])],
        algo_config=[CLEConfig(cle_steps=2)],
        extra_options={"SimplifyModel": False, "Int32Bias": False},
    )
    output = folder / "layers.onnx"
    ModelQuantizer(config).quantize_model(str(model), str(output), samples)
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    wide = {"activation_type": "int16", "weight_type": "int16"}
    config = quark_onnx.QuantizationConfig(
        calibrate_method="MinMSE",
        nodes_to_exclude=["stem.conv", "^block3.dw", "head.gemm"],
        subgraphs_to_exclude=[(["block4.dw.conv"], ["block4.dw.relu6"])],
        extra_options={
            "UsePowerOf2Scale": True,
            "ActivationSymmetric": True,
            "WeightCalibrateMethod": "MinMSE",
            "CLESteps": 2,
            "Int32Bias": False,
            "LayerTypes": {"block1.pw.conv": wide, r"^block2\.[dp]w\.conv": wide},
        },
    )
    output = folder / "layers.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, samples)
    return [output]
