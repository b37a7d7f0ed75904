"""Image classification: a reader over images, a script's `quantize_static` with words of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from quark_onnx import Config, ModelQuantizer, QuantizationConfig
from quark_onnx.ort import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class ImageReader(CalibrationDataReader):
    """One image at a time, under the name that the session tells."""

    def __init__(self, images: Any, model_path: str) -> None:
        self.images = images
        session = onnxruntime.InferenceSession(model_path, None, providers=["CPUExecutionProvider"])
        self.input_name = session.get_inputs()[0].name
        self.feeds: Iterator[dict[str, Any]] | None = None

    def get_next(self) -> dict[str, Any] | None:
        if self.feeds is None:
            self.feeds = iter([{self.input_name: np.expand_dims(image, 0)} for image in self.images])
        return next(self.feeds, None)

    def rewind(self) -> None:
        self.feeds = None


def ported(model: Path, samples: Any, folder: Path) -> list[Path]:
    output = str(folder / "int8.onnx")
    reader = ImageReader(samples, str(model))
    quantize_static(
        str(model),
        output,
        reader,
        quant_format=QuantFormat.from_string("QDQ"),
        per_channel=False,
        weight_type=QuantType.QInt8,
    )
    return [Path(output)]


def native(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = QuantizationConfig(include_cle=False, extra_options={"SmoothQuant": False})
    output = folder / "int8.onnx"
    ModelQuantizer(Config(config)).quantize_model(model, output, samples)
    return [output]
