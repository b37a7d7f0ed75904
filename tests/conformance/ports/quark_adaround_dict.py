"""Quark's first API: the settings of AdaRound are changed in the dictionary of a preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import quark_onnx
from quark_onnx.quark import Config, ModelQuantizer, get_default_config


class DigitsReader:
    """Gives one image at a time, as the tutorials' readers do."""

    def __init__(self, images: np.ndarray) -> None:
        self.iterator = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.iterator, None)
        return None if image is None else {"input": image[None]}


def ported(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    quant_config = get_default_config("S8S8_AAWS_ADAROUND")
    quant_config.extra_options["FastFinetune"]["NumIterations"] = 20
    quant_config.extra_options["FastFinetune"]["LearningRate"] = 0.05
    quant_config.include_cle = False
    quant_config.nodes_to_exclude = ["stem.conv"]
    config = Config(global_quant_config=quant_config)
    output = folder / "quantized.onnx"
    ModelQuantizer(config).quantize_model(str(model), str(output), DigitsReader(samples))
    return [output]


def native(model: Path, samples: np.ndarray, folder: Path) -> list[Path]:
    preset = quark_onnx.get_default_config("S8S8_AAWS_ADAROUND")
    tuning = quark_onnx.AdaRound(num_iterations=20, learning_rate=0.05)
    config = replace(
        preset,
        include_cle=False,
        nodes_to_exclude=["stem.conv"],
        extra_options={**preset.extra_options, "FastFinetune": tuning},
    )
    output = folder / "quantized.onnx"
    quark_onnx.ModelQuantizer(config).quantize_model(model, output, samples)
    return [output]
