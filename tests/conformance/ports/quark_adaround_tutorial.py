"""Quark's second API, its tutorials on AdaRound and AdaQuant."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import (
    AdaQuantConfig,
    AdaRoundConfig,
    CachedDataReader,
    CalibrationDataReader,
    CLEConfig,
    Int8Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
)


class DigitsReader(CalibrationDataReader):
    """A subclass of onnxruntime's base class."""

    def __init__(self, images: np.ndarray) -> None:
        self.iterator = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.iterator, None)
        return None if image is None else {"input": image[None]}


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    reader = CachedDataReader(DigitsReader(samples))
    outputs = []
    for algorithm in (AdaRoundConfig(), AdaQuantConfig(num_iterations=40, learning_rate=1e-5, update_bias=True)):
        reader.reset_iter()
        config = QConfig(
            global_config=QLayerConfig(input_tensors=Int8Spec(), weight=Int8Spec()),
            algo_config=[CLEConfig(), algorithm],
            LogSeverityLevel=3,
        )
        outputs.append(folder / f"{algorithm.name}.onnx")
        ModelQuantizer(config).quantize_model(str(model), str(outputs[-1]), reader)
    return outputs


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    outputs = []
    for tuning in (
        quark_onnx.AdaRound(),
        quark_onnx.AdaQuant(num_iterations=40, learning_rate=1e-5, rate_unit="weight"),
    ):
        config = quark_onnx.QuantizationConfig(
            calibrate_method="Percentile",
            include_fast_ft=True,
            extra_options={"ActivationSymmetric": True, "FastFinetune": tuning},
        )
        outputs.append(folder / f"{tuning.algorithm}.onnx")
        quark_onnx.ModelQuantizer(config).quantize_model(model, outputs[-1], samples)
    return outputs
