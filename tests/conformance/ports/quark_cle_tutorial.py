"""Quark's second API, its tutorial on equalization: asymmetric int8 by min and max, with and without CLE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import CalibMethod, CLEConfig, Int8Spec, ModelQuantizer, QConfig, QLayerConfig


class DigitsReader:
    """As the tutorial's: it cannot begin again."""

    def __init__(self, images: np.ndarray) -> None:
        self.iterator = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        try:
            return {"input": next(self.iterator)[None]}
        except StopIteration:
            return None


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    outputs = []
    for name, algo_config in (
        ("plain.onnx", []),
        ("cle.onnx", [CLEConfig(cle_steps=1, cle_total_layer_diff_threshold=2e-7)]),
    ):
        activation_spec = Int8Spec()
        weight_spec = Int8Spec()
        activation_spec.set_symmetric(False)
        activation_spec.set_calibration_method(CalibMethod.MinMax)
        weight_spec.set_calibration_method(CalibMethod.MinMax)
        config = QConfig(
            global_config=QLayerConfig(activation=activation_spec, weight=weight_spec),
            algo_config=algo_config,
            AlignSlice=False,
            FoldRelu=True,
            AlignConcat=True,
        )
        outputs.append(folder / name)
        ModelQuantizer(config).quantize_model(str(model), str(outputs[-1]), DigitsReader(samples))
    return outputs


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    outputs = []
    for name, equalized in (("plain.onnx", {}), ("cle.onnx", {"CLESteps": 1})):
        config = quark_onnx.QuantizationConfig(
            calibrate_method="MinMax",
            activation_type="int8",
            weight_type="int8",
            include_cle=bool(equalized),
            extra_options={"ActivationSymmetric": False, "AlignConcat": True, **equalized},
        )
        outputs.append(folder / name)
        quark_onnx.ModelQuantizer(config).quantize_model(model, outputs[-1], samples)
    return outputs
